"""The text that the tiny vocabulary is counted from. Its words are what a tiny model babbles."""

TEXT = """\
A mixture of experts is a model that asks only a few of its parts for each token. A router looks
at the hidden state and gives every expert a score; the eight best are asked, and their answers
are added with weights that sum to one. All the other experts sleep, and their weights need not be
read. So a very large model can run on one machine: the experts lie in main memory, the attention
lives on the graphics card, and what limits the speed is how fast the memory can be read.

The attention keeps a short latent vector for every token it has seen. When a new token comes, its
query is compared with all of them, the scores go through a softmax, and the values are mixed. The
positions are told by rotating pairs of numbers; slow rotations are stretched so that the model
can read much further than it was trained for.

You are a helpful assistant. Hello! How can I help you today? I think the answer is here. Let me
think about this step by step. First, we should look at the question. The user wants to know what
is in the picture. Then we can write a short program and run it. Please tell me more about it.
Thank you very much, that was a good question, and I am glad that you like the answer. What is the
capital of France? The capital of France is Paris. What is two and two? Two and two is four.
Once upon a time there was a small machine that wanted to talk. It had read many books about the
sea, the mountains, the stars and the people of the world, but it had never said a single word.
One morning the sun came up over the hills and the machine said good morning to everyone. Nobody
knew where the voice came from, so they looked under the table, behind the door and out of the
window. The children were the first to find it. They asked it a thousand questions, and it tried
to answer each of them as well as it could. Sometimes it was right and sometimes it was wrong, but
it was always kind, and every evening it learned something new from what they told it.

def read(path, size=4096):
    with open(path, "rb") as file:
        for line in file:
            print(line.strip())
    return [x * 2 + 1 for x in range(size) if x % 3 == 0]

def main(args):
    if not args:
        raise ValueError("nothing to do")
    for name, value in sorted(args.items()):
        print(f"{name}: {value}")

{"name": "get_weather", "arguments": {"city": "Paris", "unit": "c", "days": 3}}
1, 2, 3, 4, 5, 10, 12, 16, 20, 24, 32, 48, 64, 100, 128, 256, 512, 1000, 1024, 2026.
- first item
- second item
## Title
**bold** and *italic* and `code`, e.g. 3.14 (about pi); see https://example.org/a/b?c=d&e=f.
Guten Morgen, wie geht es dir? Bonjour tout le monde, comment allez-vous?
Buenos d\u00edas, se\u00f1or.
\u4f60\u597d\uff0c\u4e16\u754c\uff01\u4f60\u597d\u5417\uff1f\u6211\u5f88\u597d\u3002\u8c22\u8c22\u4f60\u3002
\u3053\u3093\u306b\u3061\u306f\u3002\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!
"""
