# /// script
# dependencies = ["pydantic"]
# [tool.strongroom]
# memory = "64M"
# ///
"""Models, errors, JSON and its schema."""

from datetime import date

from pydantic import BaseModel, Field, ValidationError


class Record(BaseModel):
    patient: str = Field(min_length=3)
    born: date
    values: list[float] = []


record = Record.model_validate_json('{"patient": "Ada", "born": "1815-12-10", "values": ["1.5", 2]}')
print(record.model_dump_json())
try:
    Record.model_validate({"patient": "x", "born": "never"})
except ValidationError as error:
    print([(one["loc"], one["type"]) for one in error.errors()])
print(sorted(Record.model_json_schema()["properties"]))
