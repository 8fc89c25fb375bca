"""What the kernel refuses, and the engine bears: sendmmsg, madvise and pwrite are replaced in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCENES = [
    "a_full_socket_buffer_waits_and_loses_nothing",
    "no_buffers_loses_a_datagram_and_timers_repeat_it",
    "a_partial_batch_is_continued",
    "a_refused_train_leaves_as_plain_datagrams_and_is_remembered",
    "a_train_refused_in_mid_transfer_repeats_nothing",
    "a_full_socket_buffer_repeats_nothing",
    "a_full_socket_buffer_in_the_middle_of_a_window_mixes_no_blocks",
    "one_bad_destination_does_not_lose_the_batch",
    "a_dead_peer_at_the_head_of_a_batch_costs_the_others_nothing",
    "a_slow_disk_makes_its_own_transfers_wait_and_no_others",
    "files_not_read_before_do_not_wait_for_a_slow_one",
    "who_waits_for_a_read_that_hangs_is_told_in_time",
    "so_much_hangs_on_a_device_that_its_files_are_refused",
    "stop_leaves_behind_what_hangs_and_frees_it_later",
    "a_slow_disk_is_not_charged_to_the_peer",
    "a_worker_asks_no_file_server_whether_a_file_is_the_same",
    "a_kernel_without_statx_still_tells_that_a_file_changed",
    "a_disk_that_cannot_be_read_ends_the_transfer_with_an_error",
    "a_read_error_that_went_away_is_not_repeated",
    "a_file_that_cannot_be_mapped_is_read",
    "without_a_page_map_nothing_is_looked_at",
    "a_file_on_a_file_server_is_never_mapped",
    "a_file_that_can_neither_be_mapped_nor_read_is_told_as_an_error",
    "starting_a_transfer_asks_no_file_server",
    "a_disk_that_cannot_be_written_is_told_as_an_error",
    "a_disk_that_fills_up_is_told_as_error_3",
    "short_writes_are_continued",
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = REPOSITORY / "tests/support/faults.c"
    subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True
    )
    return library


@pytest.mark.parametrize("scene", SCENES)
def test_the_engine_bears(scene, shim):
    # Behind what is preloaded already: ASan's runtime insists on being the first.
    preload = " ".join(filter(None, (os.environ.get("LD_PRELOAD"), str(shim))))
    played = subprocess.run(
        [sys.executable, "-m", "tests.engine.faulty_kernel", scene],
        cwd=REPOSITORY,
        env={**os.environ, "LD_PRELOAD": preload},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    print(played.stdout)
    assert played.returncode == 0, played.stdout + played.stderr
    assert played.stdout.endswith("played\n")
