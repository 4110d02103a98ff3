"""Clients: some have rights given and taken away, others ask Finance whether they have them."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.chaos.asking import Asker
from tests.chaos.company import Question, Standing, allows, draw_change, way_to_full
from tests.chaos.oracle import Answer, Asked, Oracle
from tests.chaos.people import People, Person, is_set_within

#: Each asks about a person and a question at random, then waits: together some two hundred times a second.
_ASKERS: Final = 6
_ASKING_PAUSE_SECONDS: Final = 0.02
#: How long a person's rights stay as they are: so short that writes come close upon one another, and so long that many
#: stand for longer than the bound, which is what the oracle judges. Drawn evenly over the logarithm.
_DWELL_MIN_SECONDS: Final = 0.3
_DWELL_BOUNDS: Final = 3.0
#: Whoever was denied a right asks for it at once, until refused or for so many bounds.
_FOLLOWED_BOUNDS: Final = 3.0
_FOLLOWING_PAUSE_SECONDS: Final = 0.002


@dataclass(frozen=True)
class Company:
    """Who there is, what they may be asked, and in which business units."""

    people: People
    questions: tuple[Question, ...]
    units: tuple[str, ...]


class Load:
    """Writes and asks from `start` to `stop`. What it sees is in the oracle."""

    def __init__(
        self,
        company: Company,
        oracle: Oracle[str, Standing, Question],
        random: Random,
        *,
        url: str,
        bound_seconds: float,
    ) -> None:
        self.company = company
        self._oracle = oracle
        self._random = random
        self._url = url
        self._bound_seconds = bound_seconds
        self._writing_over = asyncio.Event()
        self._asking_over = asyncio.Event()
        self._writers: list[asyncio.Task[None]] = []

    def start(self, tasks: asyncio.TaskGroup, changing: list[Person]) -> None:
        """Ask about everybody, and change the rights of some of them."""
        people = self.company.people
        self._writers = [tasks.create_task(self._write(person)) for person in changing]
        for _ in range(_ASKERS):
            tasks.create_task(self._ask())
        tasks.create_task(people.keep_signed_in(self._asking_over))

    async def stop_writing(self) -> None:
        """Have every write finished and known."""
        self._writing_over.set()
        await asyncio.gather(*self._writers)

    def stop(self) -> None:
        """Have the askers end too."""
        self._writing_over.set()
        self._asking_over.set()

    async def grant_all(self, person: Person) -> None:
        """Give a person all there is."""
        people = self.company.people
        while True:
            await people.may_write()
            missing = way_to_full(people.standing(person), str(person.id))
            if not missing:
                return
            await people.change(person, missing[0])

    async def ask_all(self) -> list[Asked[str, Question]]:
        """Ask everything about everybody once."""
        asker = self._asker()
        try:
            found = [
                await asker.ask(person, question)
                for person in self.company.people.members
                for question in self.company.questions
            ]
        finally:
            asker.close()
        self._oracle.asked += found
        return found

    async def ask(self, person: Person, question: Question) -> Asked[str, Question]:
        """Ask one thing once."""
        asker = self._asker()
        try:
            asked = await asker.ask(person, question)
        finally:
            asker.close()
        self._oracle.asked.append(asked)
        return asked

    def differing(self, answers: list[Asked[str, Question]]) -> list[str]:
        """Which of these answers are not what the last writes say."""
        timelines = self._oracle.timelines
        return [
            f"{asked.subject} {asked.question}: {asked.answer.value} {asked.told}"
            for asked in answers
            if asked.answer
            is not (Answer.ALLOWED if allows(timelines[asked.subject].state, asked.question) else Answer.REFUSED)
        ]

    def counts(self, since: float = 0.0, until: float = float("inf")) -> Counter[Answer]:
        """How many answers of each kind there were to questions asked in this time."""
        return Counter(asked.answer for asked in self._oracle.asked if since <= asked.started <= until)

    async def _write(self, person: Person) -> None:
        people, random = self.company.people, self._random
        asker = self._asker()
        try:
            while not await is_set_within(self._writing_over, self._dwell_seconds()):
                await people.may_write()
                before = people.standing(person)
                change = draw_change(random, before, str(person.id), self.company.units)
                if before.status == "removed":
                    # Who comes back is given everything, so that most of the time there is something to take away.
                    await self.grant_all(person)
                elif await people.change(person, change):
                    await self._follow(asker, person, before, change.after)
        finally:
            asker.close()

    async def _follow(self, asker: Asker, person: Person, before: Standing, after: Standing) -> None:
        """Ask for something that was taken away until it is refused."""
        lost = [each for each in self.company.questions if allows(before, each) and not allows(after, each)]
        if not lost:
            return
        question = self._random.choice(lost)
        loop = asyncio.get_running_loop()
        end = loop.time() + _FOLLOWED_BOUNDS * self._bound_seconds
        while loop.time() < end and not await is_set_within(self._asking_over, _FOLLOWING_PAUSE_SECONDS):
            asked = await asker.ask(person, question)
            self._oracle.asked.append(asked)
            if asked.answer is Answer.REFUSED:
                return

    async def _ask(self) -> None:
        asker = self._asker()
        try:
            while not await is_set_within(self._asking_over, _ASKING_PAUSE_SECONDS):
                person = self._random.choice(self.company.people.members)
                question = self._random.choice(self.company.questions)
                self._oracle.asked.append(await asker.ask(person, question))
        finally:
            asker.close()

    def _asker(self) -> Asker:
        return Asker(self._url, str(self.company.people.company_id))

    def _dwell_seconds(self) -> float:
        longest = _DWELL_BOUNDS * self._bound_seconds
        return float(_DWELL_MIN_SECONDS * (longest / _DWELL_MIN_SECONDS) ** self._random.random())
