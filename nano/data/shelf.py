"""The shelf of tools: what each is called, what it takes, how people ask for it, what it returns.

Names of tools and parameters are drawn among synonyms, so that the declaration has to be read: a
model that only remembers `get_weather` fails where the tool is called `weather_lookup`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nano.data.draw import Draw
from nano.data.words import ANIMALS, CITIES, COLOURS, FRUITS, NAMES, THINGS

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

    def arguments(self, values: Mapping[int, Value]) -> dict[str, Value]:
        """Values by the parameter's number -> by name, in the order of the declaration."""
        order = sorted(values, key=lambda n: (self.tool.parameters[n].optional, self.parameters[n]))
        return {self.parameters[n]: values[n] for n in order}


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
_animal = _of(*ANIMALS)
_colour = _of(*COLOURS)
_done = _of("ok", "done")
_small = _from(1, 20)
_minutes = _from(1, 60)


def _clock(draw: Draw) -> Value:
    return f"{draw.number(0, 23):02d}:{draw.pick((0, 15, 30, 45)):02d}"


SHELF = (
    _tool("get_weather weather weather_lookup", "Get the weather of a city",
          (_one("city location place", _city, "City name"), _enum("unit units", "celsius",
              "fahrenheit", optional=True)),
          ("What is the weather in {0}?", "How is the weather in {0}?", "weather in {0}",
              "Tell me the weather in {0} in {1}.", "What's the weather like in {0}?"),
          temperature=_from(0, 35), sky=_of("sunny", "rain", "snow", "cloudy")),
    _tool("get_time current_time time_in", "Get the current time of a city",
        (_one("city place location", _city, "City name"),),
          ("What time is it in {0}?", "Tell me the time in {0}.", "What is the time in {0}?",
              "current time in {0}"), time=_clock),
    _tool("set_timer start_timer timer", "Start a timer", (_whole("minutes duration", 1, 60,
        "Minutes"),),
          ("Set a timer for {0} minutes.", "Start a timer of {0} minutes.", "timer {0} minutes",
              "Please start a timer for {0} minutes."), status=_done),
    _tool("set_alarm alarm create_alarm", "Set an alarm", (_one("time at", _clock, "HH:MM"),),
          ("Wake me up at {0}.", "Set an alarm for {0}.", "alarm at {0}", "Set my alarm to {0}."),
          status=_done),
    _tool("send_message message_to text_person", "Send a message to a person",
          (_one("person to recipient", _name, "Name of the person"), _one("text message",
              _of("hello", "see you soon", "call me", "I am late", "happy birthday"),
              "What to say")),
          ("Send {0} the message {1}.", "Tell {0}: {1}", "Write to {0}: {1}",
              "Send a message to {0}: {1}"), status=_done),
    _tool("call_person phone_call call", "Call a person on the phone", (_one("person name who",
        _name),),
          ("Call {0}.", "Phone {0}.", "Please call {0} now.", "Make a call to {0}."),
          status=_of("busy", "ok")),
    _tool("turn_on light_on switch_on", "Turn a light on", (_enum("room where", "kitchen",
        "bedroom", "hall", "office"),),
          ("Turn on the light in the {0}.", "Light on in the {0}.", "Switch the {0} light on.",
              "Turn the light on in the {0}."), status=_done),
    _tool("set_temperature heat thermostat", "Set the temperature of a room",
          (_enum("room where", "kitchen", "bedroom", "hall", "office"),
              _whole("degrees temperature", 15, 28)),
          ("Set the {0} to {1} degrees.", "Heat the {0} to {1} degrees.",
              "Make it {1} degrees in the {0}."), status=_done),
    _tool("play_music play_song music", "Play music", (_enum("style genre", "jazz", "rock", "pop",
        "classical"),),
          ("Play some {0}.", "I want to hear {0}.", "Play {0} music.", "Put on some {0} music."),
          song=_of("Moon", "River", "Home")),
    _tool("set_volume volume change_volume", "Set the volume", (_whole("level percent", 0, 100,
        "From 0 to 100"),),
          ("Set the volume to {0}.", "Volume {0}", "Change the volume to {0}."), status=_done),
    _tool("add_item add_to_list shopping_add", "Add something to the shopping list",
          (_one("item product", _fruit, "What to buy"), _whole("count amount quantity", 1, 20,
              "How many", optional=True)),
          ("Add {0} to my shopping list.", "Put {0} on the list.",
              "Add {1} {0} to the shopping list.", "I need {1} {0}, add it to the list."),
              items=_small),
    _tool("find_route route directions", "Find the way between two cities",
          (_one("start origin from_city", _city), _one("end destination to_city", _city)),
          ("How do I get from {0} to {1}?", "Find a route from {0} to {1}.",
              "Directions from {0} to {1}", "Show me the way from {0} to {1}."),
              kilometers=_from(50, 999)),
    _tool("book_flight flight reserve_flight", "Book a flight", (_one("destination to city", _city),
        _whole("seats passengers people", 1, 6)),
          ("Book a flight to {0} for {1} people.", "I need {1} seats on a flight to {0}.",
              "Book {1} seats to {0}."), price=_from(80, 900), seat=_of("12A", "7C", "3F")),
    _tool("book_table reserve_table restaurant", "Reserve a table in a restaurant",
          (_whole("people guests", 1, 12), _one("time at", _clock, "HH:MM")),
          ("Book a table for {0} at {1}.", "Reserve a table for {0} people at {1}.",
              "I want a table for {0} people at {1}."), status=_done),
    _tool("convert_money exchange currency", "Convert money",
          (_whole("amount value", 1, 999), _enum("source from_currency", "USD", "EUR", "GBP"),
              _enum("target to_currency", "JPY", "CNY", "CHF")),
          ("Convert {0} {1} to {2}.", "How much is {0} {1} in {2}?", "Change {0} {1} into {2}."),
          result=_from(1, 9999)),
    _tool("stock_price get_price quote", "Get the price of a stock", (_enum("symbol ticker", "AAPL",
        "MSFT", "NVDA", "AMD"),),
          ("What is the price of {0}?", "How is {0} doing?", "Get the stock price of {0}.",
              "{0} stock price"), price=_from(10, 900)),
    _tool("search_web web_search search", "Search the web", (_one("query text", _of(*THINGS,
        *ANIMALS)),),
          ("Search the web for {0}.", "Look up {0} on the web.", "Search for {0}.",
              "Find something about {0} on the web."), title=_of("All about it", "A short guide"),
              hits=_from(1, 999)),
    _tool("open_file read_file load_file", "Read a file", (_one("path file name",
        lambda d: f"{d.pick(THINGS)}.txt"),),
          ("Open the file {0}.", "Read {0}.", "Show me the file {0}.", "What is in {0}?"),
          lines=_from(1, 200)),
    _tool("delete_file remove_file", "Delete a file", (_one("path file name",
        lambda d: f"{d.pick(THINGS)}.txt"),),
          ("Delete the file {0}.", "Remove {0}.", "Please delete {0}."), status=_done),
    _tool("create_event add_event calendar_add", "Add an event to the calendar",
          (_enum("day weekday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
              _one("person guest", _name)),
          ("Plan a meeting with {1} on {0}.", "Add a meeting with {1} on {0}.",
              "Put {1} in my calendar on {0}."), status=_done),
    _tool("get_events calendar list_events", "List the events of a day", (_enum("day weekday",
        "Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),),
          ("What do I have on {0}?", "Show my events on {0}.", "What is in my calendar on {0}?"),
          events=_small),
    _tool("find_person lookup_contact contact", "Find the phone number of a person",
        (_one("person name", _name),),
          ("What is the phone number of {0}?", "Find the number of {0}.",
              "Look up {0} in my contacts."), number=_from(1000, 9999)),
    _tool("order_pizza pizza", "Order pizza", (_enum("size", "small", "medium", "large"),
        _whole("count pieces", 1, 9)),
          ("Order {1} {0} pizzas.", "I want {1} {0} pizzas.", "Get me {1} {0} pizzas."),
          minutes=_minutes),
    _tool("order_taxi call_taxi taxi", "Order a taxi", (_one("address place destination", _city),),
          ("Get me a taxi to {0}.", "Order a taxi to {0}.", "I need a taxi to {0}."),
          minutes=_minutes),
    _tool("get_news news headlines", "Get the news", (_enum("topic subject", "sport", "business",
        "science", "weather"),),
          ("What is new in {0}?", "Show me the {0} news.", "Get the news about {0}."),
          articles=_small),
    _tool("paint_wall set_color lamp_color", "Change the colour of the lamp", (_one("color colour",
        _colour),),
          ("Make the lamp {0}.", "Change the lamp to {0}.", "Set the colour of the lamp to {0}."),
          status=_done),
    _tool("feed_animal feed", "Feed an animal", (_one("animal pet", _animal), _enum("food", "fish",
        "grass", "meat", optional=True)),
          ("Feed the {0}.", "Give the {0} some {1}.", "Please feed the {0}."), status=_done),
    _tool("random_number roll_dice random", "Draw a random number", (_whole("maximum limit upper",
        2, 100),),
          ("Give me a random number up to {0}.", "Draw a random number from 1 to {0}.",
              "Roll a dice with {0} sides."), number=_small),
    _tool("find_item where_is locate", "Find out where a thing is", (_one("item thing object_name",
        _thing),),
          ("Where is my {0}?", "Find my {0}.", "I lost my {0}, where is it?"), room=_of("kitchen",
              "bedroom", "hall", "office")),
    _tool("make_note save_note note", "Save a note", (_one("text content", _of("buy milk",
        "call the bank", "pay the rent", "clean the kitchen", "write to the school")),),
          ("Note: {0}", "Save a note: {0}", "Make a note: {0}", "Remember this: {0}"),
          status=_done),
    _tool("translate_word translate", "Translate a word", (_one("word text", _of(*FRUITS,
        *ANIMALS)), _enum("language target", "French", "German", "Spanish", "Italian")),
          ("Translate {0} to {1}.", "What is {0} in {1}?", "How do you say {0} in {1}?"),
          word=_of("haus", "gato", "mare", "pomme")),
    _tool("track_package package_status track", "Find a package", (_whole("number package_id", 1000,
        9999),),
          ("Where is package {0}?", "Track package {0}.", "What is the status of package {0}?"),
          status=_of("on the way", "delivered")),
    _tool("get_user user_info user", "Get a user by number", (_whole("id user_id", 1, 999),),
          ("Show user {0}.", "Get user {0}.", "Who is user {0}?"), name=_name, age=_from(18, 80)),
    _tool("run_program start_program run", "Run a program", (_enum("program app", "browser",
        "editor", "mail", "camera"),),
          ("Start the {0}.", "Open the {0}.", "Run the {0}."), status=_done),
)  # fmt: skip
