import numpy as np, rnncore, timeit
from rnncore.alignment.crf_targets import read_tags
rnncore.set_num_threads(1)
T,B,K=30,32,17
rng=np.random.default_rng(0)
x=rng.standard_normal((T,B,K)).astype(np.float32); y=rng.integers(0,K,(T,B)); crf=rnncore.CRF(K,seed=0); L=rnncore.CRFLoss(crf)
def t(f,n=2000):
    return min(timeit.repeat(f,number=n//10,repeat=10))/(n//10)*1e6
def call():
    crf.zero_grad(); return L.vjp(x,y)[1]()
print('whole',t(call))
print('zero',t(crf.zero_grad))
print('vjp',t(lambda:L.vjp(x,y)))
print('frames',t(lambda:crf.frames(x,None)))
f=crf.frames(x,None)
print('read_tags',t(lambda:read_tags(y,f)))
print('batch',t(lambda:crf.batch(f)))
b=crf.batch(f); tags=read_tags(y,f); s=np.full(B,1/B)
print('core loss+grad',t(lambda:b.loss(tags,s)))
print('core loss',t(lambda:b.loss(tags,None)))
print('core marg',t(lambda:b.loss(None,s)))
g=b.loss(tags,s)[1:]
print('add',t(lambda:L._add(g,x.shape)))
print('decode',t(lambda:crf.decode(x)))
print('core decode',t(lambda:b.decode(1)))
