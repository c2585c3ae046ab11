# Make namespaces of one's own into a machine with an address and nothing on it: `node.sh STATE`. It is their process 1.
set -eu
state=$1
mount -t tmpfs none /run
mount -t tmpfs none /var/lib # images and pods too, a gigabyte: quick to write, and gone at the end
mkdir -p /run/cluster /run/cni/bin /run/cni/net.d /run/netns /run/lock
mount --bind "$state/config" /run/cluster
# The kubelet sets some of what is the whole machine's, so it gets copies to write to.
for setting in kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes \
    vm/overcommit_memory vm/panic_on_oom; do
    copy=/run/cluster-$(basename $setting)
    cat /proc/sys/$setting >"$copy"
    mount --bind "$copy" /proc/sys/$setting
done
hostname node
ip link set lo up
sysctl() { echo "$2" >"/proc/sys/net/$1"; }
sysctl ipv4/ip_forward 1
echo ready >"$state/ready"
# Adopts what nobody waits for, until it is killed with all that is here.
while :; do sleep 3600 & wait; done
