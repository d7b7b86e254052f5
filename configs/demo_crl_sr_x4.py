# The small twin of crl_sr_x4.py: about a minute on a CPU, on the HR images of `contrastive-sr prepare demo`. Validation
# is on LR images there whose width and noise grow from left to right, as in the paper's Table 2. For others:
# `contrastive-sr prepare degrade datasets/demo/val/HR datasets/demo_blind --preset random-field-x4`
_base_ = ["./crl_sr_x4.py"]

methods = _base_.model.methods
methods[0]["warmup_steps"] = 20
methods[0]["positions"] = 64
model = dict(generator=dict(channels=24, encoder_blocks=6, decoder_blocks=2), methods=methods)

train_pipeline = _base_.train_pipeline
train_pipeline[1]["crop_size"] = (96, 96)
train_dataloader = dict(
    num_workers=0,
    batch_size=8,
    dataset=dict(data_root="datasets/demo", data_prefix=dict(gt="train/HR"), patch_size=96, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0, dataset=dict(data_root="datasets/demo", data_prefix=dict(img="val/LRx4_spatial", gt="val/HR"))
)

train_cfg = dict(max_iters=120, val_interval=60)
optim_wrapper = dict(generator=dict(optimizer=dict(lr=5e-4)))  # a short training needs larger steps
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=40))
log_processor = dict(window_size=5)
