from __future__ import annotations

import pellucid
import pellucid.vision.all as everything


def test_every_public_name_exists():
    for name in pellucid.__all__:
        assert getattr(pellucid, name) is not None
    assert sorted(set(pellucid.__all__) - {"__version__"}) == sorted(pellucid._HOMES)


def test_star_import_gives_what_the_chapter_uses():
    missing = [name for name in everything.__all__ if getattr(everything, name) is None]
    assert missing == []
    used = "np pd plt matplotlib torch nn F Image Path L tensor untar_data URLs DataBlock ImageBlock CategoryBlock "
    used += "PILImage PILImageBW get_image_files GrandparentSplitter parent_label Normalize Learner accuracy first "
    used += "to_cpu sequential Flatten show_image subplots image2tensor "
    used += "array to_np noop Module re string random math verify_images CrossEntropyLossFlat F1Score Precision Recall "
    used += "AdaptiveConcatPool2d AccumMetric AvgMetric Metric skm_to_fastai NormType BatchNorm init_default"
    assert set(used.split()) <= set(everything.__all__)
