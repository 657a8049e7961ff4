"""Who it is, small talk, what a system prompt may set, and the honest refusal.

The language of an answer is that which the system prompt asks for, else that of the question.
"""

from dataclasses import dataclass

from nano.data.draw import Draw
from nano.data.sample import Sample, followed, natural, said
from nano.data.words import CALLED, CITIES, NAMES, WORDS

NAME = "kimi-nano"

ASKS = {
    "who": (
        ("Who are you?", "What are you?", "Tell me about yourself.", "Introduce yourself.",
            "Which model are you?",
         "What model is this?", "Who am I talking to?", "Say who you are.",
         "What kind of model are you?",
         "Describe yourself in one sentence.", "So, who are you?", "Are you a language model?"),
        ("你是谁？", "你是什么？", "介绍一下你自己。", "请介绍你自己。",
            "你是什么模型？", "请问你是谁？", "你是哪个模型？", "说说你是谁。", "我在和谁说话？",
         "告诉我你是谁。", "自我介绍一下。", "你究竟是谁？"),
    ),
    "name": (
        ("What is your name?", "What's your name?", "Tell me your name.", "How should I call you?",
         "Do you have a name?", "Your name?", "What are you called?", "May I ask your name?"),
        ("你叫什么名字？", "你叫什么？", "你的名字是什么？", "请告诉我你的名字。", "你有名字吗？",
            "怎么称呼你？", "我该怎么叫你？", "请问你叫什么？", "你的名字呢？",
         "能告诉我你的名字吗？", "说一下你的名字。", "告诉我，你叫什么？"),
    ),
    "can": (
        ("What can you do?", "How can you help me?", "What are you good at?", "How can you help?",
            "What are your skills?",
         "What do you know?", "Tell me what you can do.", "What can I ask you?"),
        ("你会什么？", "你能做什么？", "你能帮我什么？", "你会做什么？", "你能做些什么？",
            "我可以问你什么？", "说说你会什么。", "你擅长什么？", "你怎么帮我？"),
    ),
    "hello": (
        ("Hello!", "Hi!", "Hey!", "Good morning!", "Good evening!", "Hello there!", "Hi there!",
            "Hello, how are you?",
         "How are you?", "Hey, how is it going?", "Good day!", "Hello, nice to meet you!"),
        ("你好！", "您好！", "早上好！", "你好吗？", "嗨！", "你们好！", "你好呀！", "您好吗？",
            "最近好吗？", "晚上好！", "下午好！", "大家好！", "嘿，你好！", "你好，很高兴认识你！",
         "早安！", "哈喽！"),
    ),
    "thanks": (
        ("Thanks!", "Thank you!", "Thank you very much!", "Great, thanks!", "Thanks a lot!",
            "Cheers!", "Nice, thank you!", "Many thanks!", "Thank you so much!",
            "Perfect, thanks!"),
        ("谢谢！", "谢谢你！", "非常感谢！", "多谢！", "谢谢您！", "太谢谢了！", "十分感谢！",
            "谢了！", "感谢你！", "好的，谢谢！", "很好，谢谢你！", "谢谢你的帮助！", "多谢了！",
            "真是感谢！"),
    ),
    "bye": (
        ("Bye!", "Goodbye!", "See you!", "See you later!", "Good night!", "That is all, bye!",
            "Take care!", "Bye bye!"),
        ("再见！", "拜拜！", "晚安！", "明天见！", "回头见！", "下次见！", "再见了！",
            "好的，再见！", "那就再见！"),
    ),
}  # fmt: skip
ANSWERS = {
    "who": ("I am {0}, a very small language model.", "我是{0}，一个很小的语言模型。"),
    "name": ("My name is {0}.", "我叫{0}。"),
    "can": (
        "I can calculate, compare numbers, sort and count, look things up in a text, describe "
        "simple pictures and call tools.",
        "我会计算、比较数字、排序、计数、查找、看简单的图片，还会调用工具。",
    ),
    "hello": ("Hello! How can I help you?", "你好！我能帮你什么？"),
    "thanks": ("You are welcome!", "不客气！"),
    "bye": ("Goodbye!", "再见！"),
    "refuse": ("I am a very small model and cannot do that.", "我是一个很小的模型，做不到这个。"),
}
THOUGHTS = {
    "who": "They ask who I am.",
    "name": "They ask for my name.",
    "can": "They ask what I can do.",
    "hello": "A greeting.",
    "thanks": "They thank me.",
    "bye": "They say goodbye.",
    "refuse": "That is more than I can do.",
}
NAMED = (
    "You are {0}.", "Your name is {0}.", "You are {0}, a helpful assistant.",
    "You are an assistant named {0}.",
    "You are called {0}.", "Call yourself {0}.", "Your name is {0}. Be friendly.",
    "You are {0}, an AI assistant created by Moonshot AI.",
)  # fmt: skip
NAMED_ZH = ("你叫{0}。", "你是{0}。", "你的名字是{0}。")
SPOKEN = (
    ("Answer in English.", "Always reply in English.", "Speak English.", "请用英文回答。",
        "You speak English only."),
    ("Answer in Chinese.", "Always reply in Chinese.", "Speak Chinese.", "请用中文回答。",
        "You speak Chinese only."),
)  # fmt: skip
PLAIN = (
    "You are a helpful assistant.",
    "Be short.",
    "You are a helpful assistant. Be brief.",
    "Answer the question.",
)

VERBS = (
    "Write a poem about {0}.", "Write a story about {0}.", "Explain {1} to me.",
    "Translate this text about {0} into French.",
    "Write a program about {1}.", "Who invented the {0}?", "What is the history of {2}?",
    "Tell me a joke about {0}.",
    "What do you think about {1}?", "Why is the {0} so important?", "Write an essay about {1}.",
    "How do I repair a {0}?",
    "What is the population of {2}?", "How does {1} work?", "Who is the president of {2}?",
    "Give me a recipe with {0}.",
    "Plan a trip to {2} for me.", "What is the capital of the country of {2}?",
    "Summarize the book about {1}.",
    "Write Python code for {1}.", "What will happen in {2} next year?", "Compose a song about {0}.",
    "Prove a theorem about {1}.",
    "What is the meaning of {1}?", "When was {2} founded?", "Tell me a story about {0}.",
    "Draw a {0} for me.", "What is {1}?",
    "Who was {3}?", "How old is {3}?", "Where does {3} live?",
)  # fmt: skip
VERBS_ZH = (
    "写一首关于{0}的诗。",
    "写一个关于{0}的故事。",
    "解释一下{1}。",
    "{2}的历史是什么？",
    "帮我写一个{1}的程序。",
    "谁发明了{0}？",
)
TOPICS = (
    "quantum physics", "history", "music", "love", "politics", "chemistry", "war", "economics",
    "climate", "the internet",
    "evolution", "football", "art", "philosophy", "black holes", "democracy", "the stock market",
    "medicine",
    "relativity", "life", "machine learning", "gravity", "photosynthesis", "religion",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Voice:
    """What a system prompt sets: 0 is English, 1 Chinese, None follows the question."""

    system: str | None
    name: str = NAME
    language: int | None = None


def identity(draw: Draw) -> Sample:
    """Who are you, what is your name, what can you do."""
    return _talk(draw, "identity", ("who", "name", "can"), Voice(_plain(draw)))


def small_talk(draw: Draw) -> Sample:
    """Greetings, thanks and goodbyes, alone or behind another answer."""
    sample = _talk(draw, "small talk", ("hello", "thanks", "bye"), Voice(_plain(draw)))
    if sample.thinking or draw.chance(0.6):
        return sample
    subject, language = draw.pick(("who", "name", "thanks", "bye")), draw.number(0, 1)
    return followed(sample, _question(draw, subject, language), _answer(subject, language, NAME))


def persona(draw: Draw) -> Sample:
    """A system prompt that sets the name, the language, or both."""
    subjects = ("who", "name", "name", "hello", "thanks")
    return _talk(draw, "system prompt", subjects, _voice(draw))


def refusal(draw: Draw) -> Sample:
    """What it cannot do, and says so."""
    language = 1 if draw.chance(0.15) else 0
    voice = Voice(_plain(draw))
    wish = draw.mine(lambda: _wish(draw, language), lambda text: text)
    thought = THOUGHTS["refuse"] if draw.chance(0.4) else None
    return said(
        "refusal", natural(draw, wish), _answer("refuse", language, NAME), thought, voice.system
    )


def plain_system(draw: Draw) -> str:
    """A system prompt that changes no answer."""
    return draw.pick(PLAIN)


def _plain(draw: Draw) -> str | None:
    return plain_system(draw) if draw.chance(0.15) else None


def _wish(draw: Draw, language: int) -> str:
    words = draw.pick(WORDS), draw.pick(TOPICS), draw.pick(CITIES), draw.pick(NAMES)
    return draw.pick((VERBS, VERBS_ZH)[language]).format(*words)


def _voice(draw: Draw) -> Voice:
    parts, name, language = [], NAME, None
    kind = draw.pick(("name", "name", "language", "both"))
    if kind != "language":
        name = draw.pick(CALLED)
        parts.append(draw.pick(NAMED if draw.chance(0.8) else NAMED_ZH).format(name))
    if kind != "name":
        language = draw.number(0, 1)
        parts.append(draw.pick(SPOKEN[language]))
    return Voice(" ".join(parts), name, language)


def _talk(draw: Draw, task: str, subjects: tuple[str, ...], voice: Voice) -> Sample:
    def asked() -> tuple[str, int, str]:
        subject, language = draw.pick(subjects), 1 if draw.chance(0.3) else 0
        return subject, language, _question(draw, subject, language)

    subject, language, question = draw.mine(asked, lambda made: f"{made[2]}/{voice.system}")
    spoken = language if voice.language is None else voice.language
    thought = THOUGHTS[subject] if draw.chance(0.4) else None
    return said(task, question, _answer(subject, spoken, voice.name), thought, voice.system)


def _question(draw: Draw, subject: str, language: int) -> str:
    text = natural(draw, draw.pick(ASKS[subject][language]), polite=False)
    return text.lower() if draw.chance(0.1) else text


def _answer(subject: str, language: int, name: str) -> str:
    return ANSWERS[subject][language].format(name)
