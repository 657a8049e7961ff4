"""A view that only remembers what was said."""

from cli.figures import media_line


class Lines:
    """What was said, in order; the rest is silence."""

    def __init__(self):
        self.said = []

    def say(self, text, tone="plain"):
        self.said.append(text)

    def attached(self, media):
        self.said.append(media_line(media))

    def waiting(self, label):
        pass

    def finish(self):
        pass
