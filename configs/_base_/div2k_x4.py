# DIV2K x4 in MMagic's usual folders: images cut into parts by `contrastive-sr prepare div2k`, Set5 for validation.
scale = 4

load_image = dict(type="LoadImageFromFile", color_type="color", channel_order="rgb", imdecode_backend="cv2")
train_pipeline = [
    dict(key="img", **load_image),
    dict(key="gt", **load_image),
    dict(type="SetValues", dictionary=dict(scale=scale)),
    dict(type="PairedRandomCrop", gt_patch_size=192),  # 48 x 48 in LR
    dict(type="Flip", keys=["img", "gt"], flip_ratio=0.5, direction="horizontal"),
    dict(type="Flip", keys=["img", "gt"], flip_ratio=0.5, direction="vertical"),
    dict(type="RandomTransposeHW", keys=["img", "gt"], transpose_ratio=0.5),
    dict(type="PackInputs"),
]
val_pipeline = [dict(key="img", **load_image), dict(key="gt", **load_image), dict(type="PackInputs")]

train_dataloader = dict(
    num_workers=8,
    batch_size=16,
    drop_last=True,
    pin_memory=True,
    persistent_workers=False,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="contrastive_sr.PairedImageDataset",
        scale=scale,
        data_root="data/DIV2K",
        data_prefix=dict(img="DIV2K_train_LR_bicubic/X4_sub", gt="DIV2K_train_HR_sub"),
        filename_tmpl=dict(img="{}", gt="{}"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=4,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="contrastive_sr.PairedImageDataset",
        scale=scale,
        data_root="data/Set5",
        data_prefix=dict(img="LRbicx4", gt="GTmod12"),
        filename_tmpl=dict(img="{}", gt="{}"),
        pipeline=val_pipeline,
    ),
)
# the paper measures on Y
val_evaluator = dict(
    type="Evaluator",
    metrics=[
        dict(type="PSNR", crop_border=scale, convert_to="Y"),
        dict(type="SSIM", crop_border=scale, convert_to="Y"),
        dict(type="contrastive_sr.Pattern", period=scale),  # periodic dots above HR's own, in grey levels
    ],
)

# The paper gives neither the length of its training nor a schedule, and its released scripts fine-tune trained networks
# (learning rate 5e-6 to 5e-5). This is training from scratch with EDSR-PyTorch's schedule: our choice.
train_cfg = dict(type="IterBasedTrainLoop", max_iters=300_000, val_interval=5000)
val_cfg = dict(type="MultiValLoop")
param_scheduler = dict(type="MultiStepLR", by_epoch=False, milestones=[200_000], gamma=0.5)
