# CRL-SR (arXiv 2107.00708), blind x4 SR, DIV2K and Flickr2K: `mim train mmagic configs/crl_sr_x4.py --gpus 1`
_base_ = ["./_base_/runtime.py", "./_base_/df2k_x4.py"]

model = dict(
    type="contrastive_sr.ContrastiveBaseEditModel",
    # the paper gives the number of the encoder's blocks; the rest is ours
    generator=dict(type="contrastive_sr.CRLSR", scale=4, channels=64, encoder_blocks=15, decoder_blocks=5),
    pixel_loss=dict(type="L1Loss", loss_weight=1.0, reduction="mean"),
    # Isotropic kernels of 21 x 21, width 0.2 to 4, noise of level 0 to 75. The paper's second setting:
    # crl-anisotropic-x4.
    degradation="crl-isotropic-x4",
    # Decoupling (eq. 3) draws LR and HR features together; refinement (eq. 6) draws SR features to HR's, given LR's.
    # The paper adds them as they are and does not say in which range its images are: a share of 0.05 keeps each term's
    # gradient near 5 % of the pixel loss's. `loss_weight` and `decoupling_weight` instead are fixed weights.
    methods=[
        dict(
            type="CRLSR",
            name="crl_sr",
            # of Table 1. a: no contrast, b: SRNCE, c: InfoNCE, d: decoupling, e: d and InfoNCE, f: d and SRNCE
            variant="f",
            loss_share=0.05,
            decoupling_share=0.05,
            srnce_variant="tempered",  # of eq. 6; as printed it has no temperature: "paper"
            joint=False,  # True: feature encoder, heads and encoder learn by eq. 6 too, as in the paper
            warmup_steps=1000,  # steps before the refinement counts; ours
            temperature=0.07,
            dim=256,  # of the heads' vectors; S in the paper
            positions=256,  # sampled per layer at each step; the paper does not say how many
        )
    ],
    train_cfg=dict(),
    test_cfg=dict(),
    # images reach the losses as RGB in [0, 1]
    data_preprocessor=dict(type="DataPreprocessor", mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)

# `contrastive-sr prepare degrade data/Set14/GTmod12 data/Set14_spatial --preset crl-spatial-x4`
val_dataloader = dict(dataset=dict(data_root="data/Set14_spatial", data_prefix=dict(img="LRx4", gt="HR")))

# The paper halves its rate every 200 epochs and says neither how many there are nor how long: an epoch is read as 1,000
# steps, as in dasr_x4.py, and there are 600.
train_cfg = dict(max_iters=600_000)
param_scheduler = dict(type="MultiStepLR", by_epoch=False, milestones=[200_000, 400_000], gamma=0.5)
optim_wrapper = dict(
    constructor="contrastive_sr.MultiOptimWrapperConstructor",
    generator=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.999))),
    methods=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.999))),
)
