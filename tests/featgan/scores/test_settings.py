from __future__ import annotations

import pytest
from pydantic import ValidationError

from featgan.scores.settings import ScoreSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 19, "splits": 10}, "under 2 images each"),
        ({"classifier": "trained", "weights": "a.pth"}, "trained has its own"),
        ({"classifier": "torchvision"}, "Input should be 'inception', 'trained' or 'packaged'"),
        ({"metrics": ["fid", "fid"]}, "same name: fid, fid"),
        ({"metrics": ["precision_recall"], "count": 3, "splits": 1}, "needs a count over 3, not 3"),
        ({"features_weights": "vgg16.pth"}, "belongs to features other than the classifier's"),
        ({"features": "vgg16"}, "features are those of metrics: name some in metrics"),
        ({"metrics": ["cmmd"]}, "cmmd is defined for features: clip-vit-l-14-336, not classifier"),
        ({"trained_on": ["apples"]}, "belongs to the classifier trained"),
    ],
)
def test_inconsistent_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScoreSettings(**settings)
