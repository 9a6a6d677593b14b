# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .atomic import atomic_path, finite_or_none, write_json, write_text
from .callers import locals_of_caller
from .csv_text import csv_text, escape_cell, read_csv, unescape_cell
from .failures import end_with_reason, message_of_ours, run_command
from .file_mark import file_mark, file_sha256, sampled_mark
from .keys import Keys
from .modules import accept_weights_of_wrapper, callable_name, plain_tensor, unwrap
from .output_folder import check_output, workflows_in_use
from .patients import one_spelling, patient_key
from .run_lock import lock_folder, release_folder
from .seeding import derive_seed
from .user_files import check_user_file, is_path, read_user_json, read_user_text
from .weights import load_weights, read_settings, save_weights
from .whole_weights import accept_only_whole_weights

__all__ = [
    "Keys",
    "accept_only_whole_weights",
    "accept_weights_of_wrapper",
    "atomic_path",
    "callable_name",
    "check_output",
    "check_user_file",
    "csv_text",
    "derive_seed",
    "end_with_reason",
    "escape_cell",
    "file_mark",
    "file_sha256",
    "finite_or_none",
    "is_path",
    "load_weights",
    "locals_of_caller",
    "lock_folder",
    "message_of_ours",
    "one_spelling",
    "patient_key",
    "plain_tensor",
    "read_csv",
    "read_settings",
    "read_user_json",
    "read_user_text",
    "release_folder",
    "run_command",
    "sampled_mark",
    "unescape_cell",
    "save_weights",
    "unwrap",
    "workflows_in_use",
    "write_json",
    "write_text",
]
