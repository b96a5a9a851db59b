package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	workspaceDir = "/workspace"
	tmpDir       = "/tmp"
	// viewBytes is what folders and small files of the view itself take.
	viewBytes = 1 << 20
)

// enter makes the view of the files that the command gets, and goes there.
func enter(r *request) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("part from the mounts of the machine: %w", err)
	}
	shown, err := openShown(r.ReadOnly)
	if err != nil {
		return err
	}
	mounts, err := openMounts(r.Mounts)
	if err != nil {
		return err
	}
	v := view{request: r}
	if v.root, err = mountPoint(); err != nil {
		return err
	}
	if err := v.tmpfs("", viewBytes, 2000, 0o755); err != nil {
		return err
	}
	for _, step := range []func() error{
		v.folders, func() error { return v.place(shown) }, v.hide, v.system, func() error { return v.place(mounts) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return v.pivot()
}

// mountPoint is a folder that the view is mounted on while it is made. Nothing
// needs what it hides: what is shown is open already.
func mountPoint() (string, error) {
	for _, folder := range []string{"/tmp", "/var", "/usr", "/etc"} {
		if info, err := os.Stat(folder); err == nil && info.IsDir() {
			return folder, nil
		}
	}
	return "", errors.New("there is no folder to mount the view on")
}

// shown is something of the machine that the view has: a link, or a mount that
// is not in its place yet.
type shown struct {
	path, link string
	isDir      bool
	mount      int
}

// openShown opens what there is of some paths, read-only.
func openShown(paths []string) ([]shown, error) {
	var all []shown
	// What is above others comes before them, and shows them too.
	for _, path := range slices.Sorted(slices.Values(paths)) {
		info, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		s := shown{path: path}
		if err == nil && info.Mode()&os.ModeSymlink != 0 {
			s.link, err = os.Readlink(path)
		} else if err == nil {
			s.isDir = info.IsDir()
			s.mount, err = openMount(path, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
		}
		if err != nil {
			return nil, fmt.Errorf("show %s: %w", path, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// openMounts opens what the command has elsewhere than the machine, read-only.
func openMounts(mounts []Mount) ([]shown, error) {
	var all []shown
	for _, m := range mounts {
		mount, err := openMount(m.From, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
		if err != nil {
			return nil, fmt.Errorf("show %s: %w", m.From, err)
		}
		all = append(all, shown{path: m.At, isDir: true, mount: mount})
	}
	return all, nil
}

// openMount returns a mount of what is at a path.
func openMount(path string, attributes uint64) (int, error) {
	mount, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE|unix.O_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("clone the mount: %w", err)
	}
	if err := unix.MountSetattr(mount, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attributes}); err != nil {
		return 0, fmt.Errorf("make the mount read-only: %w", err)
	}
	return mount, nil
}

// view is the files of the command, while they are made under root.
type view struct {
	request *request
	root    string
}

func (v *view) path(path string) string { return filepath.Join(v.root, path) }

// tmpfs mounts files in memory, of a fixed size.
func (v *view) tmpfs(path string, bytes int64, files int, mode os.FileMode) error {
	data := fmt.Sprintf("size=%d,nr_inodes=%d,mode=%o", bytes, files, mode)
	if path == workspaceDir {
		uid := os.Getuid()
		if v.request.UID != 0 {
			uid = v.request.UID
		}
		data += fmt.Sprintf(",uid=%d,gid=%d", uid, uid)
	}
	if err := unix.Mount("tmpfs", v.path(path), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		return fmt.Errorf("mount files in memory on /%s: %w", strings.Trim(path, "/"), err)
	}
	return nil
}

// makeFolder and makeFile make what every user of the view may read.
func makeFolder(path string) error { return os.MkdirAll(path, 0o755) } //nolint:gosec // see above

func makeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) } //nolint:gosec // see above

// place puts what is shown into its place.
func (v *view) place(all []shown) error {
	for _, s := range all {
		target := v.path(s.path)
		if _, err := os.Lstat(target); err == nil {
			continue // it is shown already
		}
		err := makeFolder(filepath.Dir(target))
		switch {
		case err != nil:
		case s.link != "":
			err = os.Symlink(s.link, target)
		case s.isDir:
			err = makeFolder(target)
		default:
			err = makeFile(target, "")
		}
		if err == nil && s.link == "" {
			err = unix.MoveMount(s.mount, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}
		if err != nil {
			return fmt.Errorf("show %s: %w", s.path, err)
		}
	}
	return nil
}

// hide covers what must not be seen.
func (v *view) hide() error {
	for _, path := range v.request.Hidden {
		info, err := os.Stat(v.path(path))
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err == nil && info.IsDir():
			err = v.tmpfs(path, 4096, 1, 0)
		case err == nil:
			err = unix.Mount("/dev/null", v.path(path), "", unix.MS_BIND, "")
		}
		if err != nil {
			return fmt.Errorf("hide %s: %w", path, err)
		}
	}
	return nil
}

// folders makes what the command may write.
func (v *view) folders() error {
	limits := v.request.Limits
	for path, mode := range map[string]os.FileMode{workspaceDir: 0o700, tmpDir: 0o1777} {
		if err := makeFolder(v.path(path)); err != nil {
			return err
		}
		if err := v.tmpfs(path, limits.DiskBytes, limits.Files, mode); err != nil {
			return err
		}
	}
	return nil
}

// system makes /dev, /proc and what names the user.
func (v *view) system() error {
	for _, folder := range []string{"/dev", "/proc", "/etc"} {
		if err := makeFolder(v.path(folder)); err != nil {
			return err
		}
	}
	for _, device := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"} {
		if _, err := os.Stat(device); err != nil {
			continue
		}
		err := makeFile(v.path(device), "")
		if err == nil {
			err = unix.Mount(device, v.path(device), "", unix.MS_BIND, "")
		}
		if err != nil {
			return fmt.Errorf("show %s: %w", device, err)
		}
	}
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, v.path(name)); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"/etc/passwd": "sandbox:x:1000:1000::" + workspaceDir + ":/bin/sh\n", "/etc/group": "sandbox:x:1000:\n",
		"/etc/hosts": "127.0.0.1 localhost\n",
	} {
		if err := makeFile(v.path(name), text); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", v.path("/proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc, which a container that masks it does not allow: %w", err)
	}
	// No more namespaces: one would have rights that the command has not.
	if err := os.WriteFile(v.path("/proc/sys/user/max_user_namespaces"), []byte("0"), 0); err != nil {
		return fmt.Errorf("forbid further namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte("sandbox")); err != nil {
		return fmt.Errorf("name the host: %w", err)
	}
	return nil
}

// pivot makes the view all that there is.
func (v *view) pivot() error {
	if err := unix.Chdir(v.root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change to the view: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the files of the machine: %w", err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make the view read-only: %w", err)
	}
	return os.Chdir("/")
}
