# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .atomic import atomic_path, finite_or_none, write_json, write_text
<<<<<<< HEAD
from .failures import end_with_reason, message_of_ours, run_command
from .file_mark import file_mark, sampled_mark
=======
from .csv_text import csv_text, escape_cell, read_csv, unescape_cell
from .file_mark import file_mark
>>>>>>> 5dec68c (Spreadsheets do not calculate names in scores.csv; 180 kinds of hostile bundle are in the suite)
from .keys import Keys
from .modules import accept_weights_of_wrapper, callable_name, plain_tensor, unwrap
from .output_folder import check_output, workflows_in_use
from .patients import one_spelling, patient_key
from .run_lock import lock_folder, release_folder
from .seeding import derive_seed
from .user_files import check_user_file, is_path, read_user_json, read_user_text
from .weights import load_weights

__all__ = [
    "Keys",
    "accept_weights_of_wrapper",
    "atomic_path",
    "callable_name",
<<<<<<< HEAD
    "check_user_file",
    "check_output",
    "derive_seed",
    "end_with_reason",
=======
    "csv_text",
    "derive_seed",
    "escape_cell",
>>>>>>> 5dec68c (Spreadsheets do not calculate names in scores.csv; 180 kinds of hostile bundle are in the suite)
    "file_mark",
    "finite_or_none",
    "is_path",
    "load_weights",
    "one_spelling",
    "patient_key",
    "lock_folder",
    "plain_tensor",
<<<<<<< HEAD
    "read_user_json",
    "read_user_text",
    "release_folder",
    "sampled_mark",
    "message_of_ours",
    "run_command",
=======
    "read_csv",
    "unescape_cell",
>>>>>>> 5dec68c (Spreadsheets do not calculate names in scores.csv; 180 kinds of hostile bundle are in the suite)
    "unwrap",
    "workflows_in_use",
    "write_json",
    "write_text",
]
