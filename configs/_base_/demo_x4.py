# The small data set that `contrastive-sr prepare demo` writes into datasets/demo, and a training that fits a CPU.
_base_ = ["./runtime.py", "./div2k_x4.py", "./pcl_x4.py"]

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
    num_workers=0,
    dataset=dict(
        data_root="datasets/demo",
        data_prefix=dict(img="val/LRx4", gt="val/HR"),
    ),
)

train_cfg = dict(max_iters=80, val_interval=40)
param_scheduler = dict(milestones=[60])
# a short training needs larger steps
optim_wrapper = dict(generator=dict(optimizer=dict(lr=5e-4)))

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=20))
log_processor = dict(window_size=10)
