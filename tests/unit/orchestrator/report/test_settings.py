"""Test which settings are shown and in which order."""

from orchestrator.report.settings import compare_settings


def test_settings_that_differ_come_first() -> None:
    first = {
        "name": "a",
        "seed": 1,
        "method": {"name": "wilson", "alpha": 0.5},
        "scenario": {"groups": [["cat", "dog"], ["cow"]]},
    }
    second = {
        "name": "b",
        "seed": 1,
        "method": {"name": "mib"},
        "scenario": {"groups": [["cat", "dog"], ["cow"]]},
    }
    found = compare_settings([first, second])
    assert [(setting.name, setting.values) for setting in found if setting.differs] == [
        ("method.name", ("wilson", "mib")),
        ("method.alpha", ("0.5", "–")),
    ]
    same = {setting.name: setting.values for setting in found if not setting.differs}
    assert same == {"seed": ("1", "1"), "scenario.groups": ("cat dog | cow", "cat dog | cow")}
