# HR images of DIV2K (800) and Flickr2K (2,650), cut into parts as MMagic does it for DIV2K, in one folder. LR images
# are made from them at each step, on the device, by the model's `degradation`. Validation is on pairs, which a config
# names.
_base_ = ["./div2k_x4.py"]

patch_size = 192  # 48 x 48 in LR
load_hr = dict(key="gt", **_base_.load_image)
train_pipeline = [
    load_hr,
    dict(type="Crop", keys=["gt"], crop_size=(patch_size, patch_size)),
    dict(type="Flip", keys=["gt"], flip_ratio=0.5, direction="horizontal"),
    dict(type="Flip", keys=["gt"], flip_ratio=0.5, direction="vertical"),
    dict(type="RandomTransposeHW", keys=["gt"], transpose_ratio=0.5),
    dict(type="PackInputs"),
]
# For methods that compare two crops of an image.
two_crops_pipeline = [
    load_hr,
    dict(type="contrastive_sr.TwoCrops", patch_size=patch_size),
    dict(type="Flip", keys=["gt", "gt_key"], flip_ratio=0.5, direction="horizontal"),
    dict(type="Flip", keys=["gt", "gt_key"], flip_ratio=0.5, direction="vertical"),
    dict(type="RandomTransposeHW", keys=["gt", "gt_key"], transpose_ratio=0.5),
    dict(type="PackInputs", keys=["gt", "gt_key"]),
]

train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        _delete_=True,
        type="contrastive_sr.HighResolutionImageDataset",
        patch_size=patch_size,
        data_root="data/DF2K",
        data_prefix=dict(gt="DF2K_train_HR_sub"),
        pipeline=train_pipeline,
    ),
)
