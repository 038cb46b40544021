"""The page of a training: its numbers, the epoch that was kept, and nothing from elsewhere."""

import re

import pytest

from xnorflow.train.curve import curve_page

EPOCHS = [
    {"epoch": 1, "loss": 2.02011, "validation_accuracy": 0.5368},
    {"epoch": 2, "loss": 0.9153, "validation_accuracy": 0.8874},
    {"epoch": 3, "loss": 0.634, "validation_accuracy": 0.8014},
]


def page(epochs=EPOCHS, best=2, name="toy"):
    return curve_page(name, "a < small net", epochs, best=best, test_accuracy=0.865, seed=7)


def test_the_page_says_which_epoch_was_kept_and_how_good_it_is():
    text = " ".join(re.sub(r"<script.*?</script>|<[^>]*>", " ", page(), flags=re.S).split())
    assert "Training of toy" in text
    assert "a &lt; small net; 3 epochs, seed 7." in text
    assert "Epoch 2 was kept, with 88.74 % of the validation frames right" in text
    assert "has 86.50 % of the test frames right" in text
    assert "1 2.0201 53.68 2 0.9153 88.74 3 0.6340 80.14" in text
    assert page().count('<tr class="kept">') == 1


def test_the_page_needs_no_network_and_fits_a_phone():
    markup = re.sub(r"<script.*?</script>", "", page(), flags=re.S)
    assert not re.search(r"<(link|img|iframe)|url[(]|https?:", markup)
    assert "<script src" not in page()
    assert '<meta name="viewport" content="width=device-width' in markup
    assert '"responsive": true' in page()


@pytest.mark.parametrize(("count", "step"), [(1, 1), (10, 1), (11, 2), (60, 6)])
def test_epochs_are_whole_numbers_on_the_axis(count, step):
    epochs = [{"epoch": n + 1, "loss": 1.0, "validation_accuracy": 0.5} for n in range(count)]
    assert f'"dtick":{step}' in page(epochs, best=1)
