#!/usr/bin/env python3
"""The expected results of tests/chat, from Jinja itself.

Renders every template of constructs.json and templates/*.jinja with the environment that
transformers gives chat templates, and compares with expected.json (--write: makes it).
Needs jinja2 (Debian: python3-jinja2); says so and passes where it is not installed.
"""
import datetime
import json
import os
import sys

try:
    import jinja2
    import jinja2.ext
    import jinja2.nodes
    import jinja2.sandbox
except ImportError:
    print("skipped: jinja2 is not installed (Debian: python3-jinja2)")
    sys.exit(0)

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = 1700000000                        # what strftime_now() is told


class Generation(jinja2.ext.Extension):
    """{% generation %}: a scope, and nothing else as far as text goes."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def environment():
    env = jinja2.sandbox.SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                              extensions=[Generation, jinja2.ext.loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(f)
    return env


def render(env, template, variables):
    """The text, or None when there is none to be had."""
    try:
        return env.from_string(template).render(**json.loads(json.dumps(variables)))
    except Exception:
        return None


def cases():
    for c in json.load(open(os.path.join(HERE, "constructs.json"))):
        yield c["t"], c["t"], c.get("v", {})
    talks = json.load(open(os.path.join(HERE, "talks.json")))
    folder = os.path.join(HERE, "templates")
    for name in sorted(os.listdir(folder)):
        source = open(os.path.join(folder, name)).read()
        for talk in sorted(talks):
            yield name + " " + talk, source, talks[talk]


def main():
    env = environment()
    found = {key: render(env, template, variables) for key, template, variables in cases()}
    path = os.path.join(HERE, "expected.json")
    if "--write" in sys.argv:
        with open(path, "w") as f:
            json.dump(found, f, ensure_ascii=False, indent=0)
            f.write("\n")
    expected = json.load(open(path))
    wrong = [k for k in sorted(set(found) | set(expected)) if found.get(k, 0) != expected.get(k, 0)]
    for key in wrong:
        print(f"{key!r}:\n  jinja2   {found.get(key)!r}\n  expected {expected.get(key)!r}")
    print(f"jinja2: {len(found) - len(wrong)} as expected, {len(wrong)} not")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
