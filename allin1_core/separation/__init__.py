"""Four stems of a track: separated from a mix with Demucs, or read from a folder or a stem file."""

from allin1_core.separation.folder import find_stem_files, read_stems, read_stems_folder, stems_folder
from allin1_core.separation.protocol import Separator, load_separator, separate, stems_from_separated
from allin1_core.separation.stem_file import find_stems

__all__ = [
    "Separator",
    "find_stem_files",
    "find_stems",
    "load_separator",
    "read_stems",
    "read_stems_folder",
    "separate",
    "stems_folder",
    "stems_from_separated",
]
