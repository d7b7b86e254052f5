# MPF-Net, x4 SR of real photos, RealSR: `mim train mmagic configs/mpf_net_x4.py --gpus 1`
_base_ = ["./_base_/runtime.py", "./_base_/div2k_x4.py"]

model = dict(
    type="contrastive_sr.ContrastiveBaseEditModel",
    generator=dict(
        type="contrastive_sr.MPFNet",
        scale=4,
        channels=50,  # ours: 5.85 M parameters at a scale of 4, where the paper has 5.95 M
        blocks=10,
        perceptions="mpfe",  # Table V without MPFE: "vanilla"; Table VI: "0+5", "1+4", "2+3", "3+2", "4+1", "5+0"
        cross_fusion=True,  # Table V without CPB: False
    ),
    pixel_loss=dict(type="L1Loss", loss_weight=1.0, reduction="mean"),
    # Eq. 12: L1 alone for `warmup_steps` steps, and then L1 + beta CR.
    methods=[
        dict(
            type="MPF",
            name="mpf",
            # Of Table VII. 1: L1 alone. 2: VGG-19 as embedding. 3: generated positives and negatives. 4: other images
            # as negatives. 5: the LR image as negative. 6: HR as positive. 7: all, the paper's.
            variant=7,
            loss_weight=1.0,  # beta. loss_share=0.05 instead: a share of the pixel loss's gradient
            warmup_steps=200_000,
            embedding_warmup_steps=180_000,  # ours: so that the contrast begins in an embedding that has learnt
            # The fifth positive (eq. 7): the SR image of a trained network, of ours or of MMagic. The paper does not
            # say which. This one you train first, on the same pairs with L1 alone: in a copy of this file set variant=1
            # and as generator the network below, and train it with --work-dir work_dirs/edsr_x4_realsr. teacher=None
            # does without.
            teacher=dict(
                network=dict(
                    type="EDSRNet", in_channels=3, out_channels=3, mid_channels=64, num_blocks=16, upscale_factor=4
                ),
                weights="work_dirs/edsr_x4_realsr/iter_500000.pth",
            ),
            # PCL-SR's eq. 7. "contrad": as where the embedding is from. "frozen". The paper does not say
            embedding_training="dual",
            noise=(0, 0.04),  # standard deviation on the four blurred negatives; ours, as the blur
            temperature=1.0,  # ours
            phase="fixed",  # the paper's
            similarity="cosine",  # "dot": eq. 10's dot product of whole maps
        )
    ],
    train_cfg=dict(),
    test_cfg=dict(),
    # images reach the losses as RGB in [0, 1]
    data_preprocessor=dict(type="DataPreprocessor", mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
)

# Pairs of photos in data/RealSR_x4/{train,test}/{HR,LR}, with equal file names. How to get there from RealSR's own
# names: `contrastive-sr prepare realsr`, docs/data.md.
train_dataloader = dict(
    batch_size=32, dataset=dict(data_root="data/RealSR_x4", data_prefix=dict(img="train/LR", gt="train/HR"))
)
val_dataloader = dict(dataset=dict(data_root="data/RealSR_x4", data_prefix=dict(img="test/LR", gt="test/HR")))

# The paper has a cosine, and does not say whether one for each phase: this is one for both.
train_cfg = dict(max_iters=500_000)
param_scheduler = dict(_delete_=True, type="CosineAnnealingLR", by_epoch=False, T_max=500_000, eta_min=1e-7)
optim_wrapper = dict(
    constructor="contrastive_sr.MultiOptimWrapperConstructor",
    generator=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.999))),
    # the embedding; the paper gives no rate of its own for it
    methods=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-4, betas=(0.9, 0.999))),
)
