# What all configs of this folder share. The first line loads the plug-in into the unmodified MMagic.
custom_imports = dict(imports=["contrastive_sr.hosts.mmagic"], allow_failed_imports=False)
default_scope = "mmagic"

# MMagic writes into work_dirs/<name of the config> below the current folder. No out_dir for the checkpoints: with one,
# --work-dir would move the logs alone, and --resume would not find its checkpoint.
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=100, log_metric_by_epoch=False),  # False: validation at its step
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="contrastive_sr.CheckpointHook",
        interval=5000,
        by_epoch=False,
        max_keep_ckpts=3,  # at least 2, or a run killed while it saves has nothing left
        save_best="PSNR",
        rule="greater",
    ),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
custom_hooks = [dict(type="BasicVisualizationHook", interval=1)]
vis_backends = [dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
visualizer = dict(
    type="ConcatImageVisualizer",
    vis_backends=vis_backends,
    fn_key="gt_path",
    img_keys=["gt_img", "input", "pred_img"],
    bgr2rgb=True,
)

# With several processes each part is wrapped on its own, because each has its own optimizer.
model_wrapper_cfg = dict(type="MMSeparateDistributedDataParallel")
env_cfg = dict(
    cudnn_benchmark=True,  # crops are all of one size
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=4),
    dist_cfg=dict(backend="nccl"),
)
# A resumed run sees the same batches only with a fixed seed.
randomness = dict(seed=0)

log_level = "INFO"
log_processor = dict(type="LogProcessor", window_size=100, by_epoch=False)
load_from = None
resume = False
