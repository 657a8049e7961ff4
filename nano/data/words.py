"""The words that conversations are made of: few, so that a very small model knows them all."""

NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jack", "Kira",
    "Leo", "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor", "Wendy", "Yuki", "Zoe",
)  # fmt: skip
CALLED = (
    "Luna",
    "Nova",
    "Max",
    "Ruby",
    "Atlas",
    "Echo",
    "Pixel",
    "Milo",
    "Sage",
    "Bolt",
    "Kimi",
    "Otto",
)
CITIES = (
    "Paris", "Rome", "Berlin", "Madrid", "London", "Tokyo", "Beijing", "Cairo", "Oslo", "Vienna",
    "Lisbon", "Athens", "Prague", "Dublin", "Delhi", "Lima", "Boston", "Sydney", "Zurich", "Seoul",
)  # fmt: skip
FRUITS = (
    "apple", "banana", "cherry", "grape", "lemon", "mango", "orange", "peach", "pear", "plum",
    "melon", "kiwi", "fig", "date", "lime", "olive",
)  # fmt: skip
ANIMALS = (
    "ant", "bear", "cat", "dog", "eagle", "fox", "goat", "horse", "lion", "mouse", "owl", "pig",
    "rabbit", "snake", "tiger", "wolf", "zebra", "duck", "frog", "sheep",
)  # fmt: skip
THINGS = (
    "book", "chair", "door", "key", "lamp", "table", "window", "bottle", "clock", "knife", "paper",
    "pen", "phone", "ring", "shoe", "spoon", "train", "umbrella", "violin", "wheel", "yarn",
    "garden", "house", "island", "jacket", "needle", "river", "stone", "tree", "cloud", "letter",
)  # fmt: skip
WORDS = (*FRUITS, *ANIMALS, *THINGS)
LETTERED = (*WORDS, "strawberry", "raspberry", "hello", "coffee", "summer", "pepper")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 220), "yellow": (240, 215, 40),
    "black": (20, 20, 20), "white": (245, 245, 245), "purple": (140, 50, 170), "orange": (245, 140,
        30),
}  # fmt: skip
ALL = (*NAMES, *CALLED, *CITIES, *LETTERED, *COLOURS)
