# DASR (CVPR 2021), blind x4 SR, DIV2K and Flickr2K: `mim train mmagic configs/dasr_x4.py --gpus 1`
_base_ = ["./_base_/runtime.py", "./_base_/df2k_x4.py"]

model = dict(
    type="contrastive_sr.ContrastiveBaseEditModel",
    # variants for Models 2, 3 and 5 of Table 1: concatenated, unmodulated, oracle (with the method TrueKernel; the
    # kernels of validation images are read from the degradations.json of `prepare degrade`)
    generator=dict(type="contrastive_sr.DASR", scale=4, variant="full"),
    pixel_loss=dict(type="L1Loss", loss_weight=1.0, reduction="mean"),
    # Isotropic kernels of 21 x 21, width 0.2 to the scale, no noise. The paper's second setting: dasr-anisotropic-x4.
    degradation="dasr-isotropic-x4",
    # The encoder learns to tell degradations apart, first alone and then with the rest of the network.
    methods=[
        dict(
            type="DASR",
            name="dasr",
            loss_weight=1 / 255,  # the paper adds the contrast to an L1 loss of images in [0, 255]; ours are in [0, 1]
            warmup_steps=100_000,  # of contrast alone
            temperature=0.07,
            queue_size=8192,
            momentum=0.999,
            positives_from="same_image",  # "same_degradation": a crop of another image under the same degradation; ours
        )
    ],
    train_cfg=dict(),
    test_cfg=dict(),
    # images reach the losses as RGB in [0, 1]
    data_preprocessor=dict(type="DataPreprocessor", mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)

# query and key are two crops of an image, under one degradation
train_dataloader = dict(dataset=dict(pipeline=_base_.two_crops_pipeline))
# `contrastive-sr prepare degrade data/Set14/GTmod12 data/Set14_width1.8 --preset dasr-table1-width1.8-x4`
val_dataloader = dict(dataset=dict(data_root="data/Set14_width1.8", data_prefix=dict(img="LRx4", gt="HR")))

# The paper: 100 epochs of contrast alone, 1e-3 and after 60 of them 1e-4; then 500 epochs of both, 1e-4 halved every
# 125. It does not say how long an epoch is: 3,450 images in batches of 32 are 108 steps, but EDSR's code, which such
# trainings build on, repeats the images up to 1,000 steps, as here. For 108 steps divide all by 9.26.
train_cfg = dict(max_iters=600_000)
param_scheduler = [
    dict(type="MultiStepLR", by_epoch=False, milestones=[60_000], gamma=0.1),
    dict(type="MultiStepLR", by_epoch=False, milestones=[225_000, 350_000, 475_000], gamma=0.5),
]
optim_wrapper = dict(
    constructor="contrastive_sr.MultiOptimWrapperConstructor",
    generator=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3, betas=(0.9, 0.999))),
)
