"""kill -9 of a random part, ten times, while starting and while running: the next start has everything."""

import os
import random
import signal

import psutil
import pytest

from tests.e2e.kisum import Kisum
from tests.harness.waiting import wait_until

PASSWORD = "a long enough passphrase"
ROUNDS = 10
STAGES = ("Starting in", "PostgreSQL", "Kafka", "databases, topics, rights", "services")


@pytest.mark.timeout(600)
async def test_whatever_is_killed_the_next_start_is_healthy_with_all_data(kisum: Kisum) -> None:
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(2**32)))
    choose = random.Random(seed)  # noqa: S311  a choice of parts, no secret
    told = [f"seed {seed}"]
    people: list[str] = []
    kisum.up()
    for number in range(ROUNDS):
        people.append(sign_up(kisum, number))
        if choose.random() < 0.5:
            told.append(f"running: {kill_one(kisum.parts(), choose)}")
        else:
            assert kisum.run("down").returncode == 0
            told.append(f"starting: {kill_while_starting(kisum, choose)}")
        recovered = kisum.run("up", "--detach")
        while recovered.returncode != 0 and "is starting or stopping" in recovered.stderr:
            recovered = kisum.run("up", "--detach")  # The one that survived the kill is on its way.
        assert recovered.returncode == 0, (told, recovered.stdout, recovered.stderr)
        await wait_until(kisum.is_healthy, bool, describe=f"healthy after {told[-1]}")
        for email in people:
            answer = kisum.call("POST", "/api/auth/token", {"email": email, "password": PASSWORD})
            assert answer.status == 200, (told, email, answer)
    print("\n".join(told))  # noqa: T201  the seed and what it did, for who reads the run


def sign_up(kisum: Kisum, number: int) -> str:
    email = f"person{number}@example.com"
    answer = kisum.call("POST", "/api/auth/users", {"email": email, "password": PASSWORD, "display_name": "P"})
    assert answer.status == 201, answer
    return email


def kill_one(parts: dict[str, psutil.Process], choose: random.Random) -> str:
    name = choose.choice(sorted(parts))
    parts[name].kill()
    return name


def kill_while_starting(kisum: Kisum, choose: random.Random) -> str:
    """Kill one of the processes there are when a random step is over, and let go of the start."""
    stage = choose.choice(STAGES[:-1])
    with kisum.start("up") as process:
        assert process.stdout
        for line in process.stdout:
            if stage in line:
                break
        killed = kill_one(kisum.parts(psutil.Process(process.pid)), choose)
        if killed != "supervisor":
            process.send_signal(signal.SIGTERM)
        process.stdout.read()
    return f"{killed} after {stage!r}"
