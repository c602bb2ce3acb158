from training.nearest import nearest


def test_the_nearest_name_is_found_in_whichever_case():
    names = ("cat", "Traffic Light")
    assert nearest("kat", names) == nearest(" CAT ", names) == "cat"
    assert nearest("traffic", names) == "Traffic Light"
    assert nearest("zebra", names) is None
