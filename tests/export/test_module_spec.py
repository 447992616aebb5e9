"""Only what says that it makes a module is called: a bundle may come from anyone."""

from __future__ import annotations

import pytest
from student_modules import TiedNet

from tutelage.errors import ModelError
from tutelage.export.module_spec import build_from_spec


@pytest.mark.parametrize("path", ["student_modules.TiedNet", "student_modules.make_net"])
def test_a_module_class_or_an_annotated_function_is_called_with_its_arguments(path: str) -> None:
    made = build_from_spec({"class_path": path, "init_args": {"width": 4}}, key="config.json")
    assert isinstance(made, TiedNet)
    assert made.table.weight.shape == (11, 4)


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("os.system", {"command": "false"}),
        ("builtins.eval", {}),
        ("subprocess.Popen", {"args": ["false"]}),
        ("student_modules.make_anything", {"width": 3}),
        ("student_modules.touch", {"path": "x"}),
        ("student_modules.NotAModule", {}),
    ],
)
def test_anything_else_is_never_called(path: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"a subclass of torch\.nn\.Module"):
        build_from_spec({"class_path": path, "init_args": arguments}, key="config.json")


@pytest.mark.parametrize(
    "path", ["nowhere.Net", "student_modules", "student_modules.Missing", "student_modules.TiedNet.missing.more"]
)
def test_what_can_not_be_imported_is_told(path: str) -> None:
    with pytest.raises(ModelError, match="imported"):
        build_from_spec({"class_path": path}, key="config.json")


def test_arguments_that_do_not_fit_are_told() -> None:
    with pytest.raises(ModelError, match="widht"):
        build_from_spec({"class_path": "student_modules.TiedNet", "init_args": {"widht": 3}}, key="config.json")


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_named_among_the_arguments_is_held_to_the_same(wrapped: bool) -> None:
    """A module among the arguments is made; a function that could do anything is not called there either."""
    harmful = {"class_path": "student_modules.touch", "init_args": {"path": "x"}}
    given = {"layers": {"a": {"class_path": "student_modules.TiedNet", "init_args": {"width": 4}}, "b": harmful}}
    spec = {"class_path": "tutelage.export.module_spec.sequence", "init_args": given}
    if wrapped:
        spec = {"class_path": "student_modules.TiedNet", "init_args": {"width": [spec]}}
    with pytest.raises(ModelError, match=r"a subclass of torch\.nn\.Module"):
        build_from_spec(spec, key="config.json")
    del given["layers"]["b"]
    if not wrapped:
        assert build_from_spec(spec, key="config.json").a.table.weight.shape == (11, 4)


@pytest.mark.parametrize("arguments", [{"trust_remote_code": True}, {"layers": [{"more": {"weights_only": False}}]}])
def test_a_bundle_can_not_have_code_run_that_comes_with_a_model(arguments: dict) -> None:
    with pytest.raises(ModelError, match="nobody has named"):
        build_from_spec({"class_path": "torch.nn.Linear", "init_args": arguments}, key="config.json")
