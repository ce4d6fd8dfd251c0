"""Golden vectors for RTL: port values and results as ``$readmemh`` files, with a manifest.

``docs/vectors.md`` describes the files.
"""

from systolic.vectors.layers import write_layer_vectors as write_layer_vectors
from systolic.vectors.manifest import SCHEMA as SCHEMA
from systolic.vectors.writing import write_vectors as write_vectors
