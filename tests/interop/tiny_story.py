"""What the tiny model says: its words, the order they come in, and how a conversation is laid out for it.

Once the small river hums beside that blue café — because Zoë answers seven stories ☕
"""

ENDLESS_CUE = "without end"
"""A last message with these words in it gets a reply that goes on until it is stopped or the context is full."""

# One line is one slot. Some words take two, three or four bytes in UTF-8: a stream must not cut them.
STORY = """
    Once|Today|Here|Tonight|Now|Elsewhere|Often|Sometimes
    | the| a| one| every| this| some| that| another
    | quiet| small| patient| naïve| curious| early| gentle| wooden
    | river| lamp| garden| poet| harbour| señor| train| cloud
    | hums| waits| listens| wanders| sings| répond| turns| dreams
    | beside| under| near| behind| above| before| past| inside
    | his| her| our| my| their| its| your| whose
    | blue| open| distant| 古い| warm| narrow| hidden| silver
    | café| door| bridge| 雪| letter| window| mountain| piano
    | ~| —|…| ·| →| ≈| &| +
    | and| while| until| because| although| so| but| yet
    | nobody| someone| grandmother| Zoë| the_captain| winter| everyone| silence
    | answers| forgets| paints| remembers| repeats| follows| praises| brings
    | three| seven| twelve| a_hundred| two| five| no| many
    | apples| stories| songs| 言葉| maps| stones| clocks| ships
    |...|?!| 🙂| ☕| 🌧| 🎈| 🦊| ✨
""".replace("_", " ")
ENDLESS = """
    | Then| Later| Again| Afterwards| Further| Meanwhile| Suddenly| Still
    | comes| goes| falls| rises| drifts| rolls| grows| shines
    | red| green| grey| thin| round| cold| bright| old
    | rain| dust| smoke| grass| foam| light| thunder| sand
    | across| along| over| through| toward| against| around| between
    | cities| fields| islands| roofs| valleys| marshes| orchards| deserts
"""

END_OF_TURN = "<|im_end|>"
START_ENDLESS = "<|endless|>"
CONTROL_TOKENS = ("<|im_start|>", END_OF_TURN, "<|endoftext|>", START_ENDLESS)

# ChatML with tools in the Hermes form, so that a request that offers tools is answered in plain text too.
CHAT_TEMPLATE = """\
{%- set offers_tools = tools is defined and tools -%}
{%- if messages[0].role == 'system' or offers_tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- endif %}
{%- if offers_tools %}
{{- '\\n\\n# Tools\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\nTo call one:\\n<tool_call>\\n{"name": <name>, "arguments": <object>}\\n</tool_call>' }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'system' and loop.first %}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- if message.tool_calls %}
{%- for tool_call in message.tool_calls %}
{{- '\\n<tool_call>\\n{"name": "' + tool_call.function.name + '", "arguments": ' }}
{{- tool_call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if messages[-1].content and 'ENDLESS_CUE' in messages[-1].content %}{{- 'START_ENDLESS' }}{%- endif %}
{%- endif %}
""".replace("ENDLESS_CUE", ENDLESS_CUE).replace("START_ENDLESS", START_ENDLESS)


def words_of(text: str) -> list[list[str]]:
    """The slots of a story, each a list of words. A line that starts with a bar is one of words with leading spaces."""
    return [line.strip().removeprefix("|").split("|") for line in text.strip().splitlines()]


def byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a byte-level vocabulary (GPT-2's `bytes_to_unicode`)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def spelled(word: str) -> str:
    letters = byte_letters()
    return "".join(letters[byte] for byte in word.encode())


class Vocabulary:
    """Every byte, so that any text can be read; the words of the stories; the control tokens.

    `follows[token]` is the state a token leaves behind: the words that may come next are those whose `needs` is it.
    State 0 is "a reply begins". It is what every byte leaves, thus also the line feed before a reply.
    """

    def __init__(self) -> None:
        self.tokens: list[str] = byte_letters()
        self.follows = [0] * len(self.tokens)
        self.needs: list[int | None] = [None] * len(self.tokens)
        self.states = 1
        end = self._add_story(words_of(STORY), starts_in=0)
        for token in CONTROL_TOKENS:
            self._add(token, needs=end if token == END_OF_TURN else None, follows=0)
        endless = self.states
        self.states += 1
        self.follows[self.id_of(START_ENDLESS)] = endless
        last = self._add_story(words_of(ENDLESS), starts_in=endless)
        self.follows = [endless if state == last else state for state in self.follows]

    def _add_story(self, slots: list[list[str]], starts_in: int) -> int:
        state = starts_in
        for words in slots:
            for word in words:
                self._add(spelled(word), needs=state, follows=self.states)
            state = self.states
            self.states += 1
        return state

    def _add(self, token: str, *, needs: int | None, follows: int) -> None:
        self.tokens.append(token)
        self.needs.append(needs)
        self.follows.append(follows)

    def id_of(self, token: str) -> int:
        return self.tokens.index(token)
