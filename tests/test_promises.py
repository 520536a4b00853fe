"""What we promise users, and the tests that keep each promise. A test that is renamed or dropped fails here."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent

PROMISES = {
    "weights of our own and of Google's npz layout load, known by content; error pages and pointers are named": [
        "transfer/test_formats.py::test_what_is_no_checkpoint_is_named",
        "transfer/test_layouts.py::test_published_names_come_back_bit_for_bit",
        "transfer/test_published_weights.py::test_the_logits_are_timms",
    ],
    "a checkpoint restores on any number of devices; parameters load anywhere, from relative and ~ paths": [
        "training/test_checkpoint.py::test_a_state_comes_back_on_another_mesh",
        "training/test_checkpoint.py::test_parameters_saved_on_a_mesh_load_where_there_is_one_device",
        "training/test_checkpoint.py::test_parameters_load_from_a_run_its_checkpoints_or_one_step",
        "transfer/test_formats.py::test_paths_may_be_relative_or_begin_with_a_tilde",
    ],
    "N + M steps equal N steps, kill, M steps, bit for bit": [
        "training/test_loop.py::test_a_run_interrupted_twice_equals_the_undisturbed_one_bit_for_bit",
        "training/test_kill.py::test_twenty_kills_at_random_moments",
        "experiment/test_run.py::test_a_run_continued_in_the_middle_equals_the_undisturbed_one_bit_for_bit",
    ],
    "a save that fails is fatal; the last step is committed before exit": [
        "training/test_checkpoint.py::test_a_failed_save_is_an_error_of_the_next_wait",
        "training/test_loop.py::test_a_failed_save_ends_the_run",
        "training/test_loop.py::test_an_error_of_a_writer_ends_the_run_after_the_commit_of_what_was_saved",
    ],
    "SIGTERM saves and exits 143, in training, evaluation, compilation and data wait": [
        "training/test_kill.py::test_sigterm_in_every_phase_saves_and_exits_143",
        "cli/test_verbs.py::test_sigterm_saves_and_exits_143",
    ],
    "a folder of one's own images works, classes and counts found": [
        "cli/test_verbs.py::test_a_folder_of_images_trains_and_evaluates_with_its_classes_inferred",
        "data/test_folder.py::test_a_bad_folder_is_described",
        "data/test_pipeline.py::test_a_corrupt_image_is_named",
    ],
    "head and position embedding fit the new task, with a report; any other gap is an error": [
        "transfer/test_surgery.py::test_align_corners_is_scipys_zoom_and_prefix_tokens_stay",
        "transfer/test_surgery.py::test_the_same_grid_is_bit_exact",
        "transfer/test_convert.py::test_a_higher_resolution_and_other_classes_are_the_usual_case",
        "transfer/test_convert.py::test_other_gaps_are_an_error_that_names_the_nearest_keys",
        "experiment/test_run.py::test_init_from_starts_at_step_0_with_a_resized_position_embedding",
    ],
    "running on the CPU beside a GPU stops with the command": [
        "parallel/test_devices.py::test_running_on_the_cpu_beside_a_gpu_stops_with_the_command",
        "parallel/test_devices.py::test_asking_for_the_cpu_is_believed",
        "cli/test_verbs.py::test_doctor_passes_here",
    ],
    "the batch is global, accumulation equals the full batch, running out of memory says what to change": [
        "training/test_step.py::test_accumulation_gives_the_step_of_the_full_batch",
        "training/test_failures.py::test_out_of_memory_says_what_to_change",
    ],
    "attention picks its back end with reasons; an explicit one lists every unmet condition": [
        "nn/test_kernels.py::test_explicit_cudnn_lists_every_unmet_condition",
    ],
    "several processes wait for each other no longer than said, agree on what they run, and end when one hangs": [
        "processes/test_processes.py::test_two_processes_then_one_then_four_make_the_same_run",
        "processes/test_processes.py::test_a_process_that_never_comes_is_named",
        "processes/test_processes.py::test_processes_that_were_given_other_settings_or_miss_data_say_which",
        "training/test_watchdog.py::test_a_run_that_hangs_says_where_and_exits_75",
    ],
    "the exact number of examples is evaluated, whatever the batch and the devices": [
        "evaluation/test_classification.py::test_batch_size_and_devices_change_no_bit",
        "data/test_pipeline.py::test_evaluation_counts_exactly_n_in_constant_shapes",
        "evaluation/test_classification.py::test_no_examples_are_an_error",
    ],
    "numbers that are not finite stop the run and keep the last good checkpoint": [
        "training/test_loop.py::test_a_value_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint",
        "training/test_step.py::test_a_batch_that_is_not_finite_changes_nothing_but_the_clock",
        "models/test_vit.py::test_in_bfloat16_softmax_statistics_and_logits_are_float32",
    ],
    "TensorFlow is never imported": [
        "cli/test_verbs.py::test_training_from_plain_python_never_imports_tensorflow",
        "data/test_tfds.py::test_tensorflow_is_not_imported_even_where_it_is_installed",
    ],
    "everything missing is listed at once, with commands, before any compile": [
        "experiment/test_run.py::test_everything_that_is_missing_is_listed_at_once",
        "data/test_tfds.py::test_preflight_lists_everything_missing_with_its_command",
    ],
    "resume and init_from are two things; resume=required fails when there is nothing": [
        "experiment/test_run.py::test_resume_required_fails_in_an_empty_directory",
        "training/test_start.py::test_then_weights_at_step_0_with_a_new_optimizer",
        "training/test_checkpoint.py::test_empty_and_partial_folders_are_passed_over_and_left",
    ],
    "a recipe says where its number comes from, builds, and steps once when shrunk": [
        "test_experiments.py::test_the_header_names_hardware_command_and_provenance",
        "test_experiments.py::test_a_shrunk_recipe_takes_a_step_on_fake_data",
        "experiment/test_learning.py::test_a_tiny_vit_learns_32_images_by_heart",
    ],
    "structure mismatches are a list of paths; checkpoints of version 1 load forever": [
        "training/test_checkpoint.py::test_another_structure_is_an_error_path_by_path",
        "training/test_checkpoint.py::test_a_checkpoint_of_format_1_loads_forever",
    ],
    "one trace of the step and one of the evaluation; a second one warns with the difference": [
        "experiment/test_run.py::test_the_step_and_the_evaluation_are_traced_once_over_two_epochs",
        "training/test_loop.py::test_a_second_trace_warns_with_the_difference",
    ],
    "starving the device is measured and warned about; buffers are bounded, nothing leaks": [
        "training/test_loop.py::test_data_that_starve_the_device_are_measured_and_warned_about",
        "training/test_loop.py::test_memory_and_threads_do_not_grow",
        "data/test_measure.py::test_memory_is_flat_over_500_batches_of_files",
    ],
    "typos and wrong types in overrides are refused with the nearest setting": [
        "experiment/test_sections.py::test_a_bad_override_is_one_clear_error",
        "test_config.py::test_a_bad_override_names_the_setting_and_its_type",
    ],
    "another batch size or process count continues at the right example": [
        "data/test_pipeline.py::test_one_to_four_processes_and_batch_8_to_16_in_mid_epoch_keep_every_example_once",
        "experiment/test_run.py::test_a_continued_run_reads_on_where_it_stopped_with_another_batch_size",
    ],
    "masks cover: a pattern that matches nothing is an error; frozen leaves keep every bit and have no buffers": [
        "test_paths.py::test_a_pattern_that_matches_nothing_is_an_error_with_a_hint",
        "optim/test_optimizers.py::test_frozen_parameters_keep_every_bit_and_no_buffers",
    ],
    "few-shot probe in closed form, equal to NumPy; chance is warned about": [
        "evaluation/test_fewshot.py::test_the_weights_are_numpys",
        "evaluation/test_fewshot.py::test_shuffled_labels_are_warned_about",
        "experiment/test_run.py::test_a_classifier_at_chance_before_fine_tuning_is_warned_about",
    ],
    "compile time is told, the cache says hit or miss, scan and remat change nothing": [
        "training/test_loop.py::test_the_compile_time_is_told_and_not_counted_as_pace",
        "experiment/test_learning.py::test_a_second_process_finds_the_compiled_step",
        "experiment/test_learning.py::test_a_run_is_continued_unrolled_and_rematerialised_from_a_scanned_one",
        "models/test_functional.py::test_scanned_and_unrolled_models_share_parameters_and_gradients",
        "nn/test_stack.py::test_every_way_to_run_gives_the_same_outputs_and_gradients_dropout_included",
    ],
}
CASES = [(promise, test) for promise, tests in PROMISES.items() for test in tests]


@pytest.mark.parametrize("promise, test", CASES, ids=[test for _, test in CASES])
def test_a_promise_has_its_test(promise, test):
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (HERE / file).read_text(), re.MULTILINE), f"{promise}: {test} is gone"
