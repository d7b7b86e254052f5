# The small twin of dasr_x4.py: about a minute on a CPU, on the HR images of `contrastive-sr prepare demo`. Validation
# is on the LR images behind a kernel of width 1.8 there; val/LRx4 are bicubic ones. For others:
# `contrastive-sr prepare degrade datasets/demo/val/HR datasets/demo_blind --preset dasr-table1-width3.4-x4`
_base_ = ["./dasr_x4.py"]

methods = _base_.model.methods
methods[0]["warmup_steps"] = 60
methods[0]["queue_size"] = 256  # the paper's 8192 would not fill in so short a training
model = dict(generator=dict(channels=32, groups=1, blocks=2), methods=methods)

train_pipeline = _base_.two_crops_pipeline
train_pipeline[1]["patch_size"] = 96
train_dataloader = dict(
    num_workers=0,
    batch_size=8,
    dataset=dict(data_root="datasets/demo", data_prefix=dict(gt="train/HR"), patch_size=96, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0, dataset=dict(data_root="datasets/demo", data_prefix=dict(img="val/LRx4_blurred", gt="val/HR"))
)

train_cfg = dict(max_iters=300, val_interval=100)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))
log_processor = dict(window_size=20)
