import sys; sys.path.insert(0,'/root/scratch')
import uvloop, pytest
def test_p(request):
    import e_profile, os
    which=os.environ.get("WHICH","postgres")
    server=request.getfixturevalue(which+"_server")
    uvloop.run(e_profile.main(server))
