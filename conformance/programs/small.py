# /// script
# dependencies = ["orjson", "PyYAML", "jinja2", "tqdm", "python-dateutil"]
# [tool.strongroom]
# memory = "64M"
# ///
"""orjson (Rust), PyYAML's C loader, jinja2, tqdm, dateutil: in one program."""

import io
import uuid
from datetime import datetime

import jinja2
import orjson
import yaml
from dateutil import rrule, tz
from tqdm import tqdm

print(orjson.dumps({"when": datetime(2026, 1, 1, tzinfo=tz.UTC), "id": uuid.UUID(int=7), "v": [1.5]}))
print(yaml.load("{a: [1, 2.5, yes], b: 2026-01-01}", Loader=yaml.CSafeLoader))
print(yaml.dump({"x": [1, {"y": None}]}, Dumper=yaml.CSafeDumper))
page = jinja2.Environment(autoescape=True).from_string("{% for n in v %}{{ n|upper }};{% endfor %}")
print(page.render(v=["a", "<b>"]))
bar = io.StringIO()
print(sum(tqdm(range(100), file=bar, ncols=40)), "100%" in bar.getvalue())
print([str(day.date()) for day in rrule.rrule(rrule.MONTHLY, count=3, dtstart=datetime(2026, 1, 31))])
