"""Transfer data: where the inputs come from, their splits, views and order, and the batches made of them."""

from tutelage.transfer.arrays import Arrays
from tutelage.transfer.base import Rows, Source
from tutelage.transfer.data import Data
from tutelage.transfer.features import Features
from tutelage.transfer.function import Function
from tutelage.transfer.huggingface import HuggingFaceDataset
from tutelage.transfer.image_files import ImageFiles
from tutelage.transfer.image_folder import ImageFolder
from tutelage.transfer.images import Images
from tutelage.transfer.labels import read_labels
from tutelage.transfer.made import Given, Made, MadeRows, Maker
from tutelage.transfer.masked_words import MaskedWords
from tutelage.transfer.mixup import Mixup
from tutelage.transfer.munge import Munge
from tutelage.transfer.noise import Noise
from tutelage.transfer.order import Order, in_original_order
from tutelage.transfer.packaged import Digits, FashionMNIST, Keel
from tutelage.transfer.similarity import Pairs, SimilarityPairs
from tutelage.transfer.splits import Splits, split_name
from tutelage.transfer.table import Table
from tutelage.transfer.tabular import Encoding, Tabular
from tutelage.transfer.text import Text
from tutelage.transfer.transfer_set import TransferSet, evaluation_batches
from tutelage.transfer.views import ShiftFlip, Views
from tutelage.transfer.wikipedia import WikipediaSentences

__all__ = [
    "Arrays",
    "Data",
    "Digits",
    "Encoding",
    "FashionMNIST",
    "Features",
    "Function",
    "Given",
    "HuggingFaceDataset",
    "ImageFiles",
    "ImageFolder",
    "Images",
    "Keel",
    "Made",
    "MadeRows",
    "Maker",
    "MaskedWords",
    "Mixup",
    "Munge",
    "Noise",
    "Order",
    "Pairs",
    "Rows",
    "ShiftFlip",
    "SimilarityPairs",
    "Source",
    "Splits",
    "Table",
    "Tabular",
    "Text",
    "TransferSet",
    "Views",
    "WikipediaSentences",
    "evaluation_batches",
    "in_original_order",
    "read_labels",
    "split_name",
]
