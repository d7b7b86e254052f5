# Cria-CL (TCSVT 2022), RRDB, x4 SR of real photos, RealSR: `mim train mmagic configs/cria_rrdb_x4.py --gpus 1`
_base_ = ["./_base_/runtime.py", "./_base_/div2k_x4.py"]

model = dict(
    type="contrastive_sr.ContrastiveBaseEditModel",
    generator=dict(
        type="contrastive_sr.CriteriaBranches",
        variant="paper",  # "released": the network of the authors' checkpoint, with 23 blocks and variant 1 to 5 below
        scale=4,
        # RRDBNet, EDSRNet or RCAN, with their keys. 19 blocks: 14.97 M parameters in all at a scale of 4; the paper has
        # 14.8 M. A checkpoint of the stock trunk to start from: trunk_weights="..."
        trunk=dict(
            type="RRDBNet",
            in_channels=3,
            out_channels=3,
            mid_channels=64,
            num_blocks=19,
            growth_channels=32,
        ),
    ),
    pixel_loss=dict(type="L1Loss", loss_weight=0.01, reduction="mean"),
    # Eq. 11 beside the pixel loss. Criteria are Pixel, SSIM, VGG, Adversarial, and the losses of MMagic by their names.
    # What the two terms do is logged as cria_..._push: 1 where a term raises a criterion, -1 where it lowers it.
    methods=[
        dict(
            type="CriaCL",
            name="cria",
            # Of Table V. 1: pixel loss alone. 2: and perceptual 1, adversarial 0.005 (`sr_criteria`). 3: and alignment.
            # 4: uniformity in its place. 5: both. 6: as 2, with branches. 7: all. Rows 1 to 5 are without branches:
            # take the trunk as generator.
            variant=7,
            anchor="Pixel",  # Table VI: "VGG", "Adversarial"
            # Positives and negatives, unless they are given as lists, are the paper's: SSIM and VGG's relu1_2 (the
            # layers are ours); VGG's conv5_4 and Adversarial. For another anchor: docs/cria_cl.md.
            # VGG-19 of torchvision or timm, downloaded once. Without internet: the path of torchvision's
            # vgg19-dcbb9e9d.pth; or None, for training without the criteria that need it.
            vgg_weights="torchvision",
            align_weight=0.01,  # align_share=0.05 instead: a share of the pixel loss's gradient
            uniformity_weight=0.01,
            masks="losses",  # what S and 1 - S weight: "losses" (Fig. 4), "images" (eq. 10), "none"
            train_masks=False,  # True, as in the paper: the masks learn to look away from what is large
            exponent=2,  # eta
            t=2,
            detach_anchor=False,  # True: the alignment cannot make the anchor worse
            normalize=False,  # True: each criterion is divided by a running mean of its size
        )
    ],
    train_cfg=dict(),
    test_cfg=dict(),
    # images reach the losses as RGB in [0, 1]
    data_preprocessor=dict(type="DataPreprocessor", mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)

# Pairs of photos in data/RealSR_x4/{train,test}/{HR,LR}, with equal file names. The paper has 200, and
# adds 800 clean images of DIV2K: `contrastive-sr prepare realsr --camera Canon --clean DIR`, docs/data.md.
train_pipeline = _base_.train_pipeline
train_pipeline[3]["gt_patch_size"] = 128  # ESRGAN's; the paper gives none
train_dataloader = dict(
    batch_size=16,  # on one GPU; 16 in all in the paper: 4 per GPU on four
    dataset=dict(
        data_root="data/RealSR_x4",
        data_prefix=dict(img="train/LR", gt="train/HR"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(dataset=dict(data_root="data/RealSR_x4", data_prefix=dict(img="test/LR", gt="test/HR")))
# On RGB, as the authors' script has it; PSNR on Y is more than a decibel higher.
val_evaluator = dict(
    metrics=[
        dict(type="PSNR", crop_border=4),
        dict(type="SSIM", crop_border=4),
        dict(type="contrastive_sr.Pattern", period=4),  # periodic dots above HR's own, in grey levels
    ]
)

train_cfg = dict(max_iters=1_000_000)
param_scheduler = dict(type="MultiStepLR", by_epoch=False, milestones=[200_000, 400_000, 600_000, 800_000], gamma=0.5)
optim_wrapper = dict(
    constructor="contrastive_sr.MultiOptimWrapperConstructor",
    generator=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.999))),
    methods=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.999))),  # the discriminator
)
