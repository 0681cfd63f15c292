import dataclasses, tempfile, time, sys, torch, warnings
from pathlib import Path
from tests.gpu.building import pipeline_for_training, train_settings
from tests.gpu.training import make_run
from workflow_scripts.common import speed as sp
from workflow_scripts.common.speed import Speed
sp.BACKEND="aot_eager"
torch.set_num_threads(1)
CPU=torch.device("cpu")
def losses(model, speed, precision="no", steps=2, **kw):
    torch.manual_seed(0)
    s=dataclasses.replace(train_settings(model,True),mixed_precision=precision,learning_rate=1e-3,speed=speed,batch_size=4,caption_dropout=0.3,**kw)
    p=pipeline_for_training(model,CPU,True)
    for n,c in p.components.items():
        if isinstance(c,torch.nn.Module): c.float()
    with tempfile.TemporaryDirectory() as f:
        r=make_run(model,p,s,CPU,Path(f),steps=steps)
        for b in r.batches(): r.advance(b)
    r.images.close()
    return [x[2] for x in r.curve], r
for model,speeds in {"sd_v1_5":[Speed(channels_last=True),Speed(attention="math"),Speed(optimiser="fused"),Speed(captions_ahead=True),Speed(compile="network",attention="math",channels_last=True)],
 "flux_1_dev":[Speed(compile="blocks")],
}.items():
    t=time.time(); base,_=losses(model,Speed()); print(model,"none",time.time()-t, base,flush=True)
    for s in speeds:
        t=time.time()
        try:
            l,_=losses(model,s); print("  ",s.chosen, max(abs(a-b)/a for a,b in zip(base,l)), f"{time.time()-t:.1f}s",flush=True)
        except Exception as e: print("  ",s.chosen,"ERR",type(e).__name__,str(e)[:600],flush=True)
