"""Asking: what the ledger lacks is sent, a few calls at once, and nothing is used that is not stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tutelage.errors import CapReached, QueryFailed, UserError
from tutelage.ledger.calls import Call, Failure, UnreadAnswer
from tutelage.ledger.owners import new_owner
from tutelage.ledger.pace import TooSoon, back_off
from tutelage.ledger.questions import Question
from tutelage.ledger.settings import Asking, Caps, Prices, Usage
from tutelage.ledger.store import Ledger

__all__ = ["Desk"]

POLL = 0.05
"""Seconds between two looks at what another process is asking."""


class Desk:
    """Where the questions to one endpoint go through the ledger.

    Args:
        ledger: The ledger; several desks may share it.
        endpoint: Who is asked, as the ledger shall say it: no keys.
        caps: Where to stop.
        asking: How fast to ask.
        prices: What it costs.
    """

    def __init__(self, ledger: Ledger, endpoint: str, *, caps: Caps, asking: Asking, prices: Prices) -> None:
        self.ledger, self.endpoint = ledger, endpoint
        self.caps, self.asking, self.prices = caps, asking, prices
        self.owner = new_owner()
        self.sent = 0
        """Attempts of this desk."""
        self.lacking: dict[str, str] = {}
        """The questions of this desk that have no usable answer, with the reason."""
        self._asking = 0
        self._began, self._before = 0.0, 0.0
        self._lock = threading.Lock()

    def ask(
        self,
        questions: Sequence[Question],
        pack: Callable[[list[int]], Iterable[Call]],
        *,
        attempts: int | None = None,
    ) -> list[bytes]:
        """The answer to each question, from the ledger where it has one.

        Args:
            questions: May hold the same one several times.
            pack: Makes the calls for the questions at these positions.
            attempts: How often each is sent, where that is not `asking.attempts`.

        Raises:
            CapReached: A cap stops it. All that was answered is stored.
            QueryFailed: A question got no usable answer.
        """
        answers = self._ask(questions, pack, attempts or self.asking.attempts, allowed=0)
        return [answer for answer in answers if answer is not None]

    def ask_most(
        self, questions: Sequence[Question], pack: Callable[[list[int]], Iterable[Call]], *, allowed: int
    ) -> list[bytes | None]:
        """As `ask`, with None for a question that got no usable answer although its endpoint answers others.

        Such a question is noted in the ledger as given up and is not asked again, unless `allowed` is 0. When the run
        stops, those that were met since the last such call are not noted: the endpoint or the request may be to blame.

        Args:
            questions: As in `ask`.
            pack: As in `ask`.
            allowed: How many questions of this desk may lack an answer, in all.

        Raises:
            CapReached: A cap stops it. All that was answered is stored.
            QueryFailed: More got no usable answer, or the endpoint itself fails.
        """
        return self._ask(questions, pack, self.asking.attempts, allowed=allowed)

    def _ask(
        self, questions: Sequence[Question], pack: Callable[[list[int]], Iterable[Call]], attempts: int, allowed: int
    ) -> list[bytes | None]:
        first = {each.key: at for at, each in reversed(list(enumerate(questions)))}
        found = self.ledger.answers(first)
        known = self._given_up(first.keys() - found.keys(), allowed)
        lacking = dict(known)
        self._count(1)
        try:
            while missing := [key for key in first if key not in found and key not in lacking]:
                mine = self.ledger.claim(missing, self.owner)
                if mine:
                    wanted = [questions[first[key]] for key in missing]
                    lacking |= _Round(self, wanted, attempts, allowed).run(pack(sorted(first[k] for k in mine)))
                else:  # another process asks what is left
                    time.sleep(POLL)
                    known |= self._given_up(missing, allowed)
                    lacking |= known
                found |= self.ledger.answers(missing)
            if new := {key: reason for key, reason in lacking.items() if key not in known}:
                self.ledger.give_up(new, self.endpoint)
        finally:
            self._count(-1)
            if len(found) < len(first):
                self.ledger.release(self.owner)
        return [found.get(each.key) for each in questions]

    def _given_up(self, keys: Iterable[str], allowed: int) -> dict[str, str]:
        """Those of the questions that were given up before; where every one needs an answer they are asked again."""
        known = self.ledger.given_up(keys) if allowed else {}
        for key, reason in known.items():
            self.lack([key], reason, allowed)
        return known

    def lack(self, keys: Sequence[str], reason: str, allowed: int) -> None:
        """Counts questions that have no usable answer.

        Raises:
            QueryFailed: They are more than are allowed.
        """
        with self._lock:
            self.lacking |= dict.fromkeys(keys, reason)
            count = len(self.lacking)
        if count > allowed:
            raise QueryFailed(
                f"{self.endpoint}: {count:,} questions have no usable answer, {allowed:,} may have none "
                f"(`unanswered`); the last: {reason}"
            )

    def lack_unread(self, key: str, reason: str, allowed: int) -> None:
        """Counts a question whose answer is stored and can't be made sense of.

        Raises:
            QueryFailed: More have no usable answer than are allowed; it says what that cost, and how to go on.
        """
        try:
            self.lack([key], reason, allowed)
        except QueryFailed as error:
            calls, tokens, money = self.ledger.spent()
            spent = f"{calls:,} calls, {tokens:,} tokens" + (f", {money:,.6g} in money" if self.prices.known else "")
            lines = [
                str(error),
                f"  asked:    {spent} so far; {self.ledger.unread():,} answers are there that can't be read",
                f"  kept:     all, in {self.ledger.path}: the next run reads them again and asks none again, for the "
                "same question would have the same answer",
                "  go on:    change what is asked (`prompt`, `system`, `settings`), let some stay without an answer "
                f"(`unanswered`), or have them asked again: tutelage ledger {self.ledger.path} --ask-again",
            ]
            raise UnreadAnswer("\n".join(lines)) from error

    def price_of(self, calls: int) -> str:
        """So many calls in words: what they cost at the mean of the ledger's calls so far, and the caps."""
        made, tokens, money = self.ledger.spent()
        known = [f"some {tokens / made * calls:,.6g} tokens"] if made and tokens else []
        known += [f"some {money / made * calls:,.3g} in money"] if made and self.prices.known else []
        at = f" ({', '.join(known)}: at the mean of the {made:,} calls so far)" if known else ""
        limits = ((name, limit) for name, limit in vars(self.caps).items() if limit is not None)
        return f"{calls:,} calls{at}; " + (
            ", ".join(f"caps.{name} {limit:,.12g}" for name, limit in limits) or "no cap"
        )

    def over_caps(self, calls: int, *, answers: int = 1) -> list[str]:
        """A sentence for each cap below what so many calls come to, at the mean of the ledger's calls so far.

        Args:
            calls: That it takes to ask everything, were nothing stored.
            answers: How many questions a call answers.
        """
        made, tokens, money = self.ledger.spent()
        more = max(calls - self.ledger.count() // answers, 0)
        means = {"calls": 1.0, "tokens": tokens / made if made else 0.0, "money": money / made if made else 0.0}
        found = []
        for name, spent in (("calls", made), ("tokens", tokens), ("money", money)):
            cap, comes_to = getattr(self.caps, name), spent + more * means[name]
            if cap is not None and more and comes_to > cap:
                found.append(
                    f"caps.{name} {cap:,.12g} will stop the run: {more:,} calls are still to be made, which come to "
                    f"about {comes_to:,.6g} {'in money' if name == 'money' else name} with the {made:,} so far; raise "
                    "it, or ask about fewer rows (data.limit); what is answered is kept"
                )
        return found

    def seconds_left(self) -> float:
        """Of the cap on seconds: only the time that is spent in `ask` counts."""
        if self.caps.seconds is None:
            return float("inf")
        with self._lock:
            now = time.monotonic() - self._began if self._asking else 0.0
            return self.caps.seconds - self._before - now

    def _count(self, change: int) -> None:
        """One more asks, or one less: the clock runs while any does."""
        with self._lock:
            if self._asking == 0:
                self._began = time.monotonic()
            self._asking += change
            if self._asking == 0:
                self._before += time.monotonic() - self._began


class _Round:
    """The calls that are sent together; the first that can't be answered stops those that are not sent yet."""

    def __init__(self, desk: Desk, wanted: Sequence[Question], attempts: int, allowed: int) -> None:
        self.desk, self.wanted, self.attempts, self.allowed = desk, wanted, attempts, allowed
        self.lacking: dict[str, str] = {}
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.under_way = 0
        self.lock = threading.Lock()

    def run(self, calls: Iterable[Call]) -> dict[str, str]:
        """Sends them all, or raises what stopped it; calls under way come to their end first.

        Returns:
            The questions that got no usable answer, with the reason.
        """
        try:
            with ThreadPoolExecutor(self.desk.asking.concurrent, thread_name_prefix="asking") as pool:
                try:
                    for done in [pool.submit(self._guarded, call) for call in calls]:
                        done.result()
                except BaseException:
                    self.stop.set()
                    raise
        finally:
            if self.error is not None:
                raise self._explained(self.error) from self.error
        return self.lacking

    def _guarded(self, call: Call) -> None:
        if self.stop.is_set():
            return
        try:
            self._send(call)
        except BaseException as error:
            with self.lock:
                self.error = self.error or error
            self.stop.set()

    def _send(self, call: Call) -> None:
        """Sends a call until it is answered."""
        desk = self.desk
        for attempt in range(1, self.attempts + 1):
            if (number := self._book(call)) is None:
                return
            began = time.monotonic()
            try:
                reply = call.send(min(desk.asking.timeout, max(desk.seconds_left(), 0.001)))
                call.require_fit(reply)
            except Failure as failure:
                self._close(number, failure, time.monotonic() - began)
                if self._gives_up(call, failure, attempt):
                    return
                self._wait(failure, attempt)
                continue
            except UserError as error:  # what it answered is of no use to this recipe: nothing of it is stored
                useless = Failure("unusable", " ".join(str(error).split())[:300], retry=False)
                self._close(number, useless, time.monotonic() - began)
                raise
            except BaseException as error:
                lost = Failure("cut", f"{type(error).__name__} while it was under way", retry=False)
                self._close(number, lost, time.monotonic() - began)
                raise
            desk.ledger.close(
                number,
                "unusable" if reply.unread or reply.lacks else "answered",
                usage=reply.usage or (Usage() if call.most == Usage() else None),
                prices=desk.prices,
                latency=time.monotonic() - began,
                http_status=reply.http_status,
                error=reply.unread or (" ".join(str(reply.lacks).split())[:300] if reply.lacks else None),
                answers=[(q, a) for q, a in zip(call.questions, reply.answers, strict=True) if a is not None],
            )
            self._landed()
            if reply.lacks is not None:  # what it said of the others is stored
                call = call.rest(reply)
                if not isinstance(reply.lacks, Failure):
                    raise reply.lacks
                if self._gives_up(call, reply.lacks, attempt):
                    return
                self._wait(reply.lacks, attempt)
                continue
            for each in call.questions if reply.unread else ():
                desk.lack_unread(each.key, reply.unread, self.allowed)
            return

    def _book(self, call: Call) -> int | None:
        """Books an attempt, once the rate limits let it pass; None when the round is over.

        Where a cap has no room, it waits for the calls under way to say what they used of it.
        """
        desk = self.desk
        while not self.stop.is_set():
            self._require_time(0.0)
            wait = 0.01
            with self.lock:
                try:
                    number = desk.ledger.book(
                        call.questions,
                        desk.endpoint,
                        desk.owner,
                        most=call.most,
                        prices=desk.prices,
                        caps=desk.caps,
                        asking=desk.asking,
                    )
                    self.under_way += 1
                    desk.sent += 1
                    return number
                except TooSoon as early:
                    wait = early.seconds
                except CapReached as cap:
                    if not (cap.may_fit_later and self.under_way):
                        raise
            self._sleep(wait)
        return None

    def _close(self, number: int, failure: Failure, latency: float) -> None:
        self.desk.ledger.close(
            number,
            failure.status,
            usage=failure.usage,
            prices=self.desk.prices,
            latency=latency,
            calls=0 if failure.status == "refused" else 1,
            http_status=failure.http_status,
            error=failure.message,
        )
        self._landed()

    def _landed(self) -> None:
        with self.lock:
            self.under_way -= 1

    def _gives_up(self, call: Call, failure: Failure, attempt: int) -> bool:
        """Whether a call is left without an answer, because the run may go on without it."""
        if not (self.allowed and failure.of_question) or (failure.retry and attempt < self.attempts):
            return False
        keys = [each.key for each in call.questions]
        self.desk.lack(keys, failure.message, self.allowed)
        with self.lock:
            self.lacking |= dict.fromkeys(keys, failure.message)
        return True

    def _wait(self, failure: Failure, attempt: int) -> None:
        """Waits before the next attempt, or raises when there is to be none."""
        asking = self.desk.asking
        if not failure.retry or attempt >= self.attempts:
            times = "once" if attempt == 1 else f"{attempt} times"
            raise QueryFailed(f"{self.desk.endpoint}, asked {times}: {failure.message}")
        wait = back_off(attempt, asking)
        if failure.after is not None:
            if failure.after > asking.longest_wait:
                raise QueryFailed(
                    f"{self.desk.endpoint} asks to wait {failure.after:,.0f} seconds, longer than "
                    f"asking.longest_wait ({asking.longest_wait:g}): {failure.message}"
                )
            wait = max(wait, failure.after)
            self.desk.ledger.hold(self.desk.endpoint, failure.after)
        self._sleep(wait)

    def _sleep(self, seconds: float) -> None:
        self._require_time(seconds)
        self.stop.wait(seconds)

    def _require_time(self, seconds: float) -> None:
        if seconds >= self.desk.seconds_left():
            raise CapReached("seconds", f"the cap on seconds is reached: {self.desk.caps.seconds:g} for one run")

    def _explained(self, error: BaseException) -> BaseException:
        """The error with what was asked, what is missing and how to go on."""
        if not isinstance(error, CapReached | QueryFailed) or isinstance(error, UnreadAnswer):
            return error
        ledger = self.desk.ledger
        calls, tokens, money = ledger.spent()
        stored = ledger.answers(each.key for each in self.wanted)
        spent = f"{calls:,} calls, {tokens:,} tokens" + (f", {money:,.6g} in money" if self.desk.prices.known else "")
        go_on = "run the same command again: it asks only what is missing"
        if isinstance(error, CapReached):
            go_on = f"raise `caps.{error.cap}`, then {go_on}"
        text = "\n".join(
            [
                str(error),
                f"  asked:    {spent} so far; {ledger.count():,} questions are answered",
                f"  missing:  {len(self.wanted) - len(stored):,} of the {len(self.wanted):,} questions asked for now",
                f"  kept:     every answer, in {ledger.path}",
                f"  go on:    {go_on}",
            ]
        )
        return CapReached(error.cap, text) if isinstance(error, CapReached) else QueryFailed(text)
