"""The words that conversations are made of: few, so that a very small model knows them all."""

NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jack", "Kira",
    "Leo", "Mia", "Noah", "Olga", "Paul",
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
    "Lisbon", "Athens",
)  # fmt: skip
FRUITS = (
    "apple", "banana", "cherry", "grape", "lemon", "mango", "orange", "peach", "pear", "plum",
)  # fmt: skip
ANIMALS = (
    "bear", "cat", "dog", "eagle", "fox", "goat", "horse", "lion", "mouse", "owl", "rabbit", "wolf",
)  # fmt: skip
THINGS = (
    "book", "chair", "door", "key", "lamp", "table", "window", "bottle", "clock", "piano", "ring",
    "shoe", "train", "umbrella", "house", "tree",
)  # fmt: skip
WORDS = (*FRUITS, *ANIMALS, *THINGS)
LETTERED = (*WORDS, "strawberry", "raspberry", "hello", "coffee")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 220), "yellow": (240, 215, 40),
    "black": (20, 20, 20), "white": (245, 245, 245), "purple": (140, 50, 170), "orange": (245, 140,
        30),
}  # fmt: skip
ALL = (*NAMES, *CALLED, *CITIES, *LETTERED, *COLOURS)
