# The small twin of cria_rrdb_x4.py, without VGG: about a minute on a CPU, on the data of `contrastive-sr prepare demo`.
_base_ = ["./cria_rrdb_x4.py"]

methods = _base_.model.methods
methods[0]["vgg_weights"] = None  # without it there are SSIM as positive and Adversarial as negative
# Shares of the pixel loss's gradient, for the pixel loss here is another than the paper's.
methods[0]["sr_criteria"] = [dict(type="Adversarial", share=0.05)]
methods[0].update(align_weight=None, uniformity_weight=None, align_share=0.05, uniformity_share=0.05)
model = dict(
    generator=dict(trunk=dict(mid_channels=32, num_blocks=2, growth_channels=16)),
    pixel_loss=dict(loss_weight=1.0),  # 0.01 in the paper, beside a perceptual loss of 1, which needs VGG
    methods=methods,
)

train_pipeline = _base_.train_pipeline
train_pipeline[3]["gt_patch_size"] = 64
train_dataloader = dict(
    num_workers=0,
    batch_size=4,
    dataset=dict(
        data_root="datasets/demo",
        data_prefix=dict(img="train/LRx4", gt="train/HR"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=0, dataset=dict(data_root="datasets/demo", data_prefix=dict(img="val/LRx4", gt="val/HR"))
)

train_cfg = dict(max_iters=100, val_interval=50)
optim_wrapper = dict(generator=dict(optimizer=dict(lr=5e-4)))  # a short training needs larger steps
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=50))
log_processor = dict(window_size=5)
