"""Matching layers: which of the student's are to be compared with which of the teacher's.

blocks      the layers of a model that are worth comparing: ends of stages, blocks of a stack, hidden layers
similarity  how alike two layers are (CKA), and the best pairing that keeps their order
proposal    pairs by stage, depth or CKA, as a table and as what a recipe says
resolve     a recipe whose losses say `pairs: auto`, with the pairs written out
"""

from tutelage.matching.proposal import Proposal
from tutelage.matching.resolve import has_open_pairs, propose_for, with_pairs, written_pairs

__all__ = ["Proposal", "has_open_pairs", "propose_for", "with_pairs", "written_pairs"]
