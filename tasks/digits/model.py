"""The classifier: everything here may be changed."""

from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Binarizer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC

SCALING = "binary"  # binary | standard | range
THRESHOLD = 8.0  # brightness, of 16, from which a pixel is on; for binary
CLASSIFIER = "neighbours"  # neighbours | svm
NEIGHBOURS = 25
C = 1.0  # penalty of the support vector machine
GAMMA = 0.02  # width of its kernel


def make_model() -> Pipeline:
    """An untrained pipeline from rows of 64 brightnesses to one of ten digits."""
    scaling = {"binary": Binarizer(threshold=THRESHOLD), "standard": StandardScaler(), "range": MinMaxScaler()}
    if CLASSIFIER == "svm":
        return make_pipeline(scaling[SCALING], SVC(C=C, gamma=GAMMA))
    return make_pipeline(scaling[SCALING], KNeighborsClassifier(n_neighbors=NEIGHBOURS))
