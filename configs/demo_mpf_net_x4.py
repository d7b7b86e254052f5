# The small twin of mpf_net_x4.py, without teacher: a minute on a CPU, on the data of `contrastive-sr prepare demo`.
_base_ = ["./mpf_net_x4.py"]

methods = _base_.model.methods
methods[0]["warmup_steps"] = 285  # of 300: a step with the contrast takes many times as long: the last 15 show it
methods[0]["embedding_warmup_steps"] = None
methods[0]["teacher"] = None
# all four stages in the paper: four times the time
methods[0]["embedding"] = dict(type="SNResNet18", out_indices=[0, 1])
model = dict(generator=dict(channels=16, blocks=2), methods=methods)

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

train_cfg = dict(max_iters=300, val_interval=100)
param_scheduler = dict(T_max=600)
optim_wrapper = dict(generator=dict(optimizer=dict(lr=1e-3)))  # a short training needs larger steps
default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=100))
log_processor = dict(window_size=5)
