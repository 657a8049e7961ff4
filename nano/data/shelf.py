"""The shelf of tools: what each is called, what it takes, how people ask for it, what it returns.

A request has the word that its tool is named after ("the weather in Oslo": get_weather), so what
is declared can be told from what is not by reading.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nano.data.draw import Draw
from nano.data.words import ANIMALS, CITIES, FRUITS, NAMES, THINGS

Value = str | int


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; `options` make it an enum. Optional ones stand behind the required ones."""

    name: str
    draw: Callable[[Draw], Value]
    kind: str = "string"
    options: tuple[str, ...] = ()
    optional: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of its values."""
        return {"type": self.kind} | ({"enum": list(self.options)} if self.options else {})


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool. `{0}` in a request is the value of the first parameter."""

    name: str
    key: str  # the word that is in its name and in every request
    description: str
    parameters: tuple[Parameter, ...]
    requests: tuple[str, ...]
    returns: tuple[tuple[str, Callable[[Draw], Value]], ...]

    @property
    def schema(self) -> dict[str, Any]:
        """OpenAI's form."""
        parameters = {
            "type": "object",
            "properties": {each.name: each.schema for each in self.parameters},
            "required": [each.name for each in self.parameters if not each.optional],
        }
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}

    def declared(self, draw: Draw, passed: Collection[str]) -> dict[str, Any]:
        """The same, worded by chance; an optional parameter that is not passed may lack."""
        short = draw.chance(0.4)
        kept = [
            each for each in self.parameters
            if not (short and each.optional and each.name not in passed)
        ]  # fmt: skip
        told = draw.pick((self.description, self.description, f"{self.description}.", ""))
        schema = replace(self, parameters=tuple(kept), description=told).schema
        if not told:
            del schema["function"]["description"]
        return schema

    def arguments(self, values: Mapping[int, Value]) -> dict[str, Value]:
        """Values by the parameter's number -> by name, as the prompt declares them."""
        order = sorted(values, key=lambda n: (self.parameters[n].optional, self.parameters[n].name))
        return {self.parameters[n].name: values[n] for n in order}


def _of(*options: str) -> Callable[[Draw], Value]:
    return lambda draw: draw.pick(options)


def _from(low: int, high: int) -> Callable[[Draw], Value]:
    return lambda draw: draw.number(low, high)


def _whole(name: str, low: int, high: int, optional: bool = False) -> Parameter:
    return Parameter(name, _from(low, high), "integer", (), optional)


def _enum(name: str, *options: str, optional: bool = False) -> Parameter:
    return Parameter(name, _of(*options), "string", options, optional)


def _tool(
    name: str, key: str, description: str, parameters: tuple[Parameter, ...],
    requests: tuple[str, ...], **returns: Callable[[Draw], Value],
) -> Tool:  # fmt: skip
    return Tool(name, key, description, parameters, requests, tuple(returns.items()))


_city = _of(*CITIES)
_done = _of("ok", "done")
_number = _from(1, 99)
_rooms = ("kitchen", "bedroom", "hall", "office")


def _clock(draw: Draw) -> Value:
    return f"{draw.number(0, 23):02d}:{draw.pick((0, 15, 30, 45)):02d}"


SHELF = (
    _tool(
        "get_weather", "weather", "Get the weather of a city",
        (Parameter("city", _city), _enum("unit", "celsius", "fahrenheit", optional=True)),
        ("What is the weather in {0}?", "How is the weather in {0}?", "weather in {0}",
         "Tell me the weather in {0} in {1}.", "What's the weather like in {0}?"),
        temperature=_from(0, 35), sky=_of("sunny", "rain", "snow", "cloudy"),
    ),
    _tool(
        "get_time", "time", "Get the time of a city",
        (Parameter("city", _city),),
        ("What time is it in {0}?", "Tell me the time in {0}.", "What is the time in {0}?",
         "current time in {0}"),
        time=_clock,
    ),
    _tool(
        "set_timer", "timer", "Set a timer",
        (_whole("minutes", 1, 60),),
        ("Set a timer for {0} minutes.", "Start a timer of {0} minutes.", "timer {0} minutes",
         "Please set a timer for {0} minutes."),
        status=_done,
    ),
    _tool(
        "set_alarm", "alarm", "Set an alarm",
        (Parameter("time", _clock),),
        ("Set an alarm for {0}.", "alarm at {0}", "Set my alarm to {0}.",
         "I need an alarm at {0}."),
        status=_done,
    ),
    _tool(
        "send_message", "message", "Send a message to a person",
        (Parameter("person", _of(*NAMES)),
         Parameter("text", _of("hello", "see you soon", "call me", "I am late"))),
        ("Send {0} the message {1}.", "Send a message to {0}: {1}", "message to {0}: {1}",
         "Write {0} a message: {1}"),
        status=_done,
    ),
    _tool(
        "phone_person", "phone", "Phone a person",
        (Parameter("person", _of(*NAMES)),),
        ("Phone {0}.", "Please phone {0} now.", "Can you phone {0}?", "phone {0}"),
        status=_of("busy", "ok"),
    ),
    _tool(
        "turn_light", "light", "Turn the light on in a room",
        (_enum("room", *_rooms),),
        ("Turn on the light in the {0}.", "Light on in the {0}.", "Switch the {0} light on.",
         "Turn the light on in the {0}."),
        status=_done,
    ),
    _tool(
        "set_heating", "heating", "Set the heating of a room",
        (_enum("room", *_rooms), _whole("degrees", 15, 28)),
        ("Set the heating in the {0} to {1} degrees.", "Heating in the {0} to {1} degrees.",
         "Set the {0} heating to {1} degrees."),
        status=_done,
    ),
    _tool(
        "play_music", "music", "Play music",
        (_enum("style", "jazz", "rock", "pop", "classical"),),
        ("Play some {0} music.", "I want to hear {0} music.", "Play {0} music.",
         "Put on some {0} music."),
        song=_of("Moon", "River", "Home"),
    ),
    _tool(
        "set_volume", "volume", "Set the volume",
        (_whole("level", 0, 99),),
        ("Set the volume to {0}.", "Volume {0}", "Change the volume to {0}."),
        status=_done,
    ),
    _tool(
        "buy_item", "buy", "Put something on the list of what to buy",
        (Parameter("item", _of(*FRUITS)), _whole("count", 2, 20, optional=True)),
        ("Please buy {0}.", "Buy {0} for me.", "Buy {1} {0}.", "I want to buy {1} {0}."),
        items=_number,
    ),
    _tool(
        "find_route", "route", "Find the route between two cities",
        (Parameter("start", _city), Parameter("end", _city)),
        ("Find a route from {0} to {1}.", "What is the route from {0} to {1}?",
         "route from {0} to {1}", "Show me the route from {0} to {1}."),
        hours=_number,
    ),
    _tool(
        "search_web", "web", "Search the web",
        (Parameter("query", _of(*THINGS, *ANIMALS)),),
        ("Search the web for {0}.", "Look up {0} on the web.", "Find {0} on the web."),
        hits=_number,
    ),
    _tool(
        "read_file", "file", "Read a file",
        (Parameter("path", lambda d: f"{d.pick(THINGS)}.txt"),),
        ("Open the file {0}.", "Read the file {0}.", "Show me the file {0}.",
         "What is in the file {0}?"),
        lines=_number,
    ),
    _tool(
        "translate_word", "translate", "Translate a word",
        (Parameter("word", _of(*FRUITS, *ANIMALS)),
         _enum("language", "French", "German", "Spanish", "Italian")),
        ("Translate {0} to {1}.", "Please translate {0} into {1}.",
         "Translate the word {0} to {1}."),
        word=_of("haus", "gato", "mare", "pomme"),
    ),
    _tool(
        "order_taxi", "taxi", "Order a taxi",
        (Parameter("city", _city),),
        ("Get me a taxi to {0}.", "Order a taxi to {0}.", "I need a taxi to {0}."),
        minutes=_number,
    ),
)  # fmt: skip
BY_NAME: Mapping[str, Tool] = {tool.name: tool for tool in SHELF}
