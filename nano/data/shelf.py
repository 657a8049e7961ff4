"""The shelf of tools: what each is called, what it takes, how people ask for it, what it returns.

Names of tools and parameters are drawn among synonyms, so that the declaration has to be read: a
model that only remembers `get_weather` fails where the tool is called `weather_lookup`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nano.data.draw import Draw
from nano.data.words import ANIMALS, CITIES, FRUITS, NAMES, THINGS

Value = str | int


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; `options` make it an enum. Optional ones stand behind the required ones."""

    names: tuple[str, ...]
    draw: Callable[[Draw], Value]
    description: str = ""
    kind: str = "string"
    options: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool under all its names. `{0}` in a request is the value of the first parameter."""

    names: tuple[str, ...]
    description: str
    parameters: tuple[Parameter, ...]
    requests: tuple[str, ...]
    returns: tuple[tuple[str, Callable[[Draw], Value]], ...]


@dataclass(frozen=True, slots=True)
class Declared:
    """A tool as one conversation declares it."""

    tool: Tool
    name: str
    parameters: tuple[str, ...]  # names, in the order of `tool.parameters`

    @property
    def schema(self) -> dict[str, Any]:
        """OpenAI's form."""
        pairs = list(zip(self.parameters, self.tool.parameters, strict=True))
        parameters = {
            "type": "object",
            "properties": {name: _property(parameter) for name, parameter in pairs},
            "required": [name for name, parameter in pairs if not parameter.optional],
        }
        function = {
            "name": self.name,
            "description": self.tool.description,
            "parameters": parameters,
        }
        return {"type": "function", "function": function}

    @property
    def in_order(self) -> dict[str, int]:
        """Parameters as the prompt declares them, and which of the tool's each is."""
        parameters = self.tool.parameters
        order = sorted(
            range(len(parameters)), key=lambda n: (parameters[n].optional, self.parameters[n])
        )
        return {self.parameters[n]: n for n in order}

    def arguments(self, values: Mapping[int, Value]) -> dict[str, Value]:
        """Values by the parameter's number -> by name, in the order of the declaration."""
        return {name: values[n] for name, n in self.in_order.items() if n in values}


def declared(draw: Draw, tool: Tool) -> Declared:
    """Choose the names for one conversation."""
    names = tuple(draw.pick(parameter.names) for parameter in tool.parameters)
    return Declared(tool, draw.pick(tool.names), names)


def _property(parameter: Parameter) -> dict[str, Any]:
    made: dict[str, Any] = {"type": parameter.kind}
    if parameter.description:
        made["description"] = parameter.description
    if parameter.options:
        made["enum"] = list(parameter.options)
    return made


def _of(*options: str) -> Callable[[Draw], Value]:
    return lambda draw: draw.pick(options)


def _from(low: int, high: int) -> Callable[[Draw], Value]:
    return lambda draw: draw.number(low, high)


def _one(names: str, draw: Callable[[Draw], Value], description: str = "") -> Parameter:
    return Parameter(tuple(names.split()), draw, description)


def _whole(
    names: str, low: int, high: int, description: str = "", optional: bool = False
) -> Parameter:
    return Parameter(tuple(names.split()), _from(low, high), description, "integer", (), optional)


def _enum(names: str, *options: str, description: str = "", optional: bool = False) -> Parameter:
    return Parameter(tuple(names.split()), _of(*options), description, "string", options, optional)


def _tool(
    names: str, description: str, parameters: tuple[Parameter, ...], requests: tuple[str, ...],
    **returns: Callable[[Draw], Value],
) -> Tool:  # fmt: skip
    return Tool(tuple(names.split()), description, parameters, requests, tuple(returns.items()))


_city = _of(*CITIES)
_name = _of(*NAMES)
_thing = _of(*THINGS)
_fruit = _of(*FRUITS)
_done = _of("ok", "done")
_number = _from(1, 99)
_rooms = ("kitchen", "bedroom", "hall", "office")
_days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")


def _clock(draw: Draw) -> Value:
    return f"{draw.number(0, 23):02d}:{draw.pick((0, 15, 30, 45)):02d}"


SHELF = (
    _tool(
        "get_weather weather", "Get the weather of a city",
        (_one("city location", _city, "City name"),
         _enum("unit", "celsius", "fahrenheit", optional=True)),
        ("What is the weather in {0}?", "How is the weather in {0}?", "weather in {0}",
         "Tell me the weather in {0} in {1}.", "What's the weather like in {0}?"),
        temperature=_from(0, 35), sky=_of("sunny", "rain", "snow", "cloudy"),
    ),
    _tool(
        "get_time current_time", "Get the current time of a city",
        (_one("city place", _city),),
        ("What time is it in {0}?", "Tell me the time in {0}.", "What is the time in {0}?",
         "current time in {0}"),
        time=_clock,
    ),
    _tool(
        "set_timer start_timer", "Start a timer",
        (_whole("minutes duration", 1, 60, "Minutes"),),
        ("Set a timer for {0} minutes.", "Start a timer of {0} minutes.", "timer {0} minutes",
         "Please start a timer for {0} minutes."),
        status=_done,
    ),
    _tool(
        "set_alarm alarm", "Set an alarm",
        (_one("time at", _clock, "HH:MM"),),
        ("Wake me up at {0}.", "Set an alarm for {0}.", "alarm at {0}", "Set my alarm to {0}."),
        status=_done,
    ),
    _tool(
        "send_message message_to", "Send a message to a person",
        (_one("person recipient", _name, "Name of the person"),
         _one("text message", _of("hello", "see you soon", "call me", "I am late"), "What to say")),
        ("Send {0} the message {1}.", "Tell {0}: {1}", "Write to {0}: {1}",
         "Send a message to {0}: {1}"),
        status=_done,
    ),
    _tool(
        "call_person phone_call", "Call a person on the phone",
        (_one("person name", _name),),
        ("Call {0}.", "Phone {0}.", "Please call {0} now.", "Make a call to {0}."),
        status=_of("busy", "ok"),
    ),
    _tool(
        "turn_on light_on", "Turn a light on",
        (_enum("room where", *_rooms),),
        ("Turn on the light in the {0}.", "Light on in the {0}.", "Switch the {0} light on.",
         "Turn the light on in the {0}."),
        status=_done,
    ),
    _tool(
        "set_temperature heat", "Set the temperature of a room",
        (_enum("room where", *_rooms), _whole("degrees temperature", 15, 28)),
        ("Set the {0} to {1} degrees.", "Heat the {0} to {1} degrees.",
         "Make it {1} degrees in the {0}."),
        status=_done,
    ),
    _tool(
        "play_music play_song", "Play music",
        (_enum("style genre", "jazz", "rock", "pop", "classical"),),
        ("Play some {0}.", "I want to hear {0}.", "Play {0} music.", "Put on some {0} music."),
        song=_of("Moon", "River", "Home"),
    ),
    _tool(
        "set_volume volume", "Set the volume",
        (_whole("level percent", 0, 99, "From 0 to 99"),),
        ("Set the volume to {0}.", "Volume {0}", "Change the volume to {0}."),
        status=_done,
    ),
    _tool(
        "add_item shopping_add", "Add something to the shopping list",
        (_one("item product", _fruit, "What to buy"),
         _whole("count amount", 1, 20, "How many", optional=True)),
        ("Add {0} to my shopping list.", "Put {0} on the list.",
         "Add {1} {0} to the shopping list.", "I need {1} {0}, add it to the list."),
        items=_number,
    ),
    _tool(
        "find_route directions", "Find the way between two cities",
        (_one("start origin", _city), _one("end destination", _city)),
        ("How do I get from {0} to {1}?", "Find a route from {0} to {1}.",
         "Directions from {0} to {1}", "Show me the way from {0} to {1}."),
        hours=_number,
    ),
    _tool(
        "convert_money exchange", "Convert money",
        (_whole("amount value", 1, 99), _enum("source", "USD", "EUR", "GBP"),
         _enum("target", "JPY", "CNY", "CHF")),
        ("Convert {0} {1} to {2}.", "How much is {0} {1} in {2}?", "Change {0} {1} into {2}."),
        result=_number,
    ),
    _tool(
        "search_web web_search", "Search the web",
        (_one("query text", _of(*THINGS, *ANIMALS)),),
        ("Search the web for {0}.", "Look up {0} on the web.", "Search for {0}.",
         "Find something about {0} on the web."),
        hits=_number,
    ),
    _tool(
        "open_file read_file", "Read a file",
        (_one("path file", lambda d: f"{d.pick(THINGS)}.txt"),),
        ("Open the file {0}.", "Read {0}.", "Show me the file {0}.", "What is in {0}?"),
        lines=_number,
    ),
    _tool(
        "create_event add_event", "Add an event to the calendar",
        (_enum("day weekday", *_days), _one("person guest", _name)),
        ("Plan a meeting with {1} on {0}.", "Add a meeting with {1} on {0}.",
         "Put {1} in my calendar on {0}."),
        status=_done,
    ),
    _tool(
        "translate_word translate", "Translate a word",
        (_one("word text", _of(*FRUITS, *ANIMALS)),
         _enum("language", "French", "German", "Spanish", "Italian")),
        ("Translate {0} to {1}.", "What is {0} in {1}?", "How do you say {0} in {1}?"),
        word=_of("haus", "gato", "mare", "pomme"),
    ),
    _tool(
        "order_taxi call_taxi", "Order a taxi",
        (_one("address place", _city),),
        ("Get me a taxi to {0}.", "Order a taxi to {0}.", "I need a taxi to {0}."),
        minutes=_number,
    ),
    _tool(
        "random_number roll_dice", "Draw a random number",
        (_whole("maximum limit", 2, 99),),
        ("Give me a random number up to {0}.", "Draw a random number from 1 to {0}.",
         "Roll a dice with {0} sides."),
        number=_number,
    ),
    _tool(
        "find_item where_is", "Find out where a thing is",
        (_one("item thing", _thing),),
        ("Where is my {0}?", "Find my {0}.", "I lost my {0}, where is it?"),
        room=_of(*_rooms),
    ),
)  # fmt: skip
