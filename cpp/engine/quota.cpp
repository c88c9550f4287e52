#include "quota.hpp"

#include "locks.hpp"

#if defined(RNNCORE_NO_THREADS) // nor files to read of

rnncore::Index rnncore::processors(const std::string&) { return 1; }

#else

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace rnncore {
namespace {

constexpr double unlimited = std::numeric_limits<double>::infinity();

Index by_affinity() {
#if defined(__linux__)
  for (int count = 1024; count <= 1 << 20; count *= 2) { // the call fails where a set has too little room
    cpu_set_t* const set = CPU_ALLOC(count);
    if (!set) break;
    const std::size_t size = CPU_ALLOC_SIZE(count);
    const bool found = sched_getaffinity(0, size, set) == 0;
    const Index allowed = found ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (found) return std::max<Index>(allowed, 1);
  }
#endif
  return std::max<Index>(std::thread::hardware_concurrency(), 1);
}

std::vector<std::string> words(const std::string& text, char separator) {
  std::vector<std::string> found;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, separator);) found.push_back(word);
  return found;
}

bool holds(const std::string& list, const char* name) {
  const auto all = words(list, ',');
  return std::find(all.begin(), all.end(), name) != all.end();
}

/// The number that a file begins with, or what is said instead.
double number_in(const std::string& path, double otherwise) {
  std::ifstream file(path);
  double number;
  return file >> number ? number : otherwise;
}

/// Processors' worth of time that one group allows.
double quota_of(const std::string& folder, bool second_version) {
  double quota, period;
  if (second_version) { // "max 100000" where there is no limit
    std::ifstream file(folder + "/cpu.max");
    if (!(file >> quota >> period)) return unlimited;
  } else {
    quota = number_in(folder + "/cpu.cfs_quota_us", -1);
    period = number_in(folder + "/cpu.cfs_period_us", 0);
  }
  return quota > 0 && period > 0 ? quota / period : unlimited;
}

/// A hierarchy of groups: where it is mounted, and which of its groups the mount shows as its root.
struct Mount {
  std::string point, top;
};

/// That of version 2, or of the controller of time in version 1; see proc(5) on mountinfo.
Mount mount_of(const std::string& root, bool second_version) {
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == line.npos) continue;
    const auto before = words(line.substr(0, dash), ' '), after = words(line.substr(dash + 3), ' ');
    if (before.size() < 5 || after.empty()) continue;
    const bool fits = second_version ? after[0] == "cgroup2"
                                     : after[0] == "cgroup" && after.size() > 2 && holds(after[2], "cpu");
    if (fits) return {before[4], before[3]};
  }
  return {};
}

/// The least that the group at `path` and those around it allow.
double least_quota(const std::string& root, const std::string& path, bool second_version) {
  const Mount mount = mount_of(root, second_version);
  if (mount.point.empty()) return unlimited;
  std::string group = path; // within a container the mount may show the process's own group as its root
  if (mount.top != "/") group = path.rfind(mount.top, 0) == 0 ? path.substr(mount.top.size()) : "";
  double least = unlimited;
  for (;;) {
    while (!group.empty() && group.back() == '/') group.pop_back();
    least = std::min(least, quota_of(root + mount.point + group, second_version));
    if (group.empty()) return least;
    group.resize(group.find_last_of('/') == group.npos ? 0 : group.find_last_of('/'));
  }
}

/// Lines are "number:controllers:path", without controllers in version 2; see cgroups(7).
double quota(const std::string& root) {
  double least = unlimited;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controllers.empty() || holds(controllers, "cpu"))
      least = std::min(least, least_quota(root, line.substr(second + 1), controllers.empty()));
  }
  return least;
}

} // namespace

Index processors(const std::string& root) {
  const Index allowed = by_affinity();
  try {
    return Index(std::clamp(std::ceil(quota(root)), 1.0, double(allowed)));
  } catch (const std::exception&) { // what cannot be read sets no limit
    return allowed;
  }
}

} // namespace rnncore

#endif
