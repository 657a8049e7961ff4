"""Writes the charges of `sandbox.py` into a template's syntax tree, before it is compiled.

    {% for x in xs %} BODY        {% for x in environment.charged(xs) %} environment.charge(0) BODY
    a ~ b                         environment.concatenated(a, b)
    [a, b]                        environment.charged_tree([a, b])
    a | upper                     environment.charged(environment.charged(a) | upper)
    a == b                        a == environment.charged(b)
    a[1:]                         environment.charged(a[1:])

Calls and `+ * % **` need nothing: jinja2's sandbox sends those through the environment itself.
"""

from jinja2 import Environment, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.visitor import NodeTransformer

_REFUSED = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)


def metered_tree(environment: Environment, source: str) -> nodes.Template:
    """Parse a template and return its tree with the charges in; TemplateSyntaxError if refused."""
    tree = environment.parse(source)
    refused = next(tree.find_all(_REFUSED), None)
    if refused is not None:
        kind = type(refused).__name__.lower()
        raise TemplateSyntaxError(f"'{kind}' is not for chat templates", refused.lineno)
    _Metering().visit(tree)
    tree.set_environment(environment)
    return tree


class _Metering(NodeTransformer):
    """Puts a call of the environment around every expression whose cost can grow."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.iter = _ask("charged", node.iter)
        node.body.insert(0, _tick(node))
        return node

    def visit_Macro(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Stmt:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, _tick(node))
        return node

    visit_CallBlock = visit_Macro  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _ask("concatenated", *node.nodes)

    def visit_List(self, node: nodes.List | nodes.Dict) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _ask("charged_tree", node)

    visit_Dict = visit_List  # noqa: N815

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _ask("charged_tree", node) if node.ctx == "load" else node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        if node.node is None:  # {% filter %} and {% set %} blocks: the compiler wants it bare
            return node
        node.node = _ask("charged", node.node)
        return _ask("charged", node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        self.generic_visit(node)
        return _ask("charged", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Operand(self, node: nodes.Operand) -> nodes.Operand:  # noqa: N802
        self.generic_visit(node)
        node.expr = _ask("charged", node.expr)
        return node


def _ask(method: str, *arguments: nodes.Node) -> nodes.Call:
    """Return the syntax of `environment.method(*arguments)`."""
    line = arguments[0].lineno if arguments else 1
    function = nodes.EnvironmentAttribute(method, lineno=line)
    return nodes.Call(function, list(arguments), [], None, None, lineno=line)


def _tick(node: nodes.Node) -> nodes.ExprStmt:
    zero = nodes.Const(0, lineno=node.lineno)
    return nodes.ExprStmt(_ask("charge", zero), lineno=node.lineno)
