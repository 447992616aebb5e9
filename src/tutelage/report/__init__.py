"""The page a person reads: everything a bundle holds, on one self-contained sheet of HTML."""

from tutelage.report.page import write_report

__all__ = ["write_report"]
