# /// script
# dependencies = ["SQLAlchemy"]
# [tool.strongroom]
# memory = "64M"
# [tool.strongroom.files]
# "/data" = "encrypted:sealed"
# ///
"""sqlite3 on an encrypted mount: transactions, a rollback, a pool's threads, a second connection."""

import os
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import ForeignKey, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

FOLDER = "/data" if os.path.exists("/dev/attestation") else "data"


class Base(DeclarativeBase):
    pass


class Ward(Base):
    __tablename__ = "ward"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    beds: Mapped[list["Bed"]] = relationship(back_populates="ward")


class Bed(Base):
    __tablename__ = "bed"
    id: Mapped[int] = mapped_column(primary_key=True)
    ward_id: Mapped[int] = mapped_column(ForeignKey("ward.id"))
    ward: Mapped[Ward] = relationship(back_populates="beds")


os.makedirs(FOLDER, exist_ok=True)
engine = create_engine(f"sqlite:///{FOLDER}/records.db")
Base.metadata.drop_all(engine)
Base.metadata.create_all(engine)
with Session(engine) as session, session.begin():
    session.add_all(Ward(name=f"ward {n}", beds=[Bed() for _ in range(n)]) for n in range(20))
try:
    with Session(engine) as session, session.begin():
        session.add(Ward(name="lost"))
        session.flush()
        raise KeyError("lost")
except KeyError:
    pass


def beds(number):
    with Session(engine) as session:
        return session.scalar(select(func.count()).join(Ward.beds).where(Ward.name == f"ward {number}"))


with ThreadPoolExecutor(2) as pool:
    print(list(pool.map(beds, range(20))))
engine.dispose()
with Session(create_engine(f"sqlite:///{FOLDER}/records.db")) as session:
    print(session.scalar(select(func.count(Ward.id))), os.path.getsize(f"{FOLDER}/records.db") > 8000)
