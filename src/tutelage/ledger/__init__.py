"""The query ledger: what a remote teacher was asked, what it answered, and what that cost."""

from tutelage.ledger.calls import Call, Failure, Reply
from tutelage.ledger.desk import Desk
from tutelage.ledger.questions import Question, question
from tutelage.ledger.settings import Asking, Caps, Prices, Usage
from tutelage.ledger.store import Ledger
from tutelage.ledger.summary import describe_ledger

__all__ = [
    "Asking",
    "Call",
    "Caps",
    "Desk",
    "Failure",
    "Ledger",
    "Prices",
    "Question",
    "Reply",
    "Usage",
    "describe_ledger",
    "question",
]
