"""Makes synsets.mat and synsets_packed.mat: a table as the meta.mat of ILSVRC2012's development kit has it, of four
classes and two synsets above them, by scipy 1.17.1.

    python make_synsets.py
"""

import pathlib

import numpy
import scipy.io

rows = [
    (1, "n02119789", "kit fox, Vulpes macrotis", "small grey fox", 0, [], 0, 1300),
    (2, "n02100735", "English setter", "an English breed", 0, [], 0, 1300),
    (3, "n02110185", "Siberian husky", "breed of sled dog", 0, [], 0, 1300),
    (4, "n01440764", "tench, Tinca tinca", "freshwater dace-like fish", 0, [], 0, 1300),
    (5, "n02083346", "canine, canid", "mammals of f\u00e6ces", 2, [1, 3], 2, 0),
    (6, "n00001740", "entity", "that which is perceived", 2, [4, 5], 19, 0),
]
fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
synsets = numpy.empty((len(rows), 1), dtype=[(field, object) for field in fields])
for i, row in enumerate(rows):
    synsets[i, 0] = tuple(numpy.array(value, dtype=float) if isinstance(value, list) else
                          value if isinstance(value, str) else float(value) for value in row)
folder = pathlib.Path(__file__).parent
contents = {"other": numpy.arange(6.0), "synsets": synsets}
scipy.io.savemat(folder / "synsets.mat", contents)
scipy.io.savemat(folder / "synsets_packed.mat", contents, do_compression=True)
